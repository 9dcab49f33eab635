package sparkdl.jvm;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.lang.ref.WeakReference;
import java.nio.charset.StandardCharsets;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.spark.SparkEnv;
import org.apache.spark.deploy.SparkHadoopUtil;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Looks at a folder's current.json and gives the model that it names to whoever scores; a bad one is refused, once. */
final class Follower implements Runnable {
    private static final Logger LOG = LoggerFactory.getLogger(Follower.class);
    private static final String CURRENT = "current.json";

    private final WeakReference<Running> followed; // it may be let go: then there is nothing to follow for
    private final SparkEnv application = SparkEnv.get();
    private final Configuration hadoop = SparkHadoopUtil.get().newConfiguration(application.conf());
    private final Path folder;
    private final long everyMs;
    private String seen = ""; // the text of current.json that was taken over or refused
    private String told = ""; // the trouble that was logged last

    Follower(Running running) {
        followed = new WeakReference<>(running);
        folder = new Path(running.config.follow());
        everyMs = running.config.everyMs();
    }

    void start() {
        Thread thread = new Thread(this, "sparkdl-follows-" + folder.getName());
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void run() {
        try {
            while (SparkEnv.get() == application) {
                Thread.sleep(everyMs);
                Running running = followed.get();
                if (running == null) return;
                look(running);
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    /** Take over the model that current.json names, if it is another. */
    void look(Running running) {
        try {
            String text = new String(read(CURRENT), StandardCharsets.UTF_8);
            if (text.equals(seen)) return;
            try {
                running.takeOver(next(running, Config.parsed(text)));
            } catch (IllegalArgumentException error) {
                Metrics.here().refusals.inc();
                LOG.error("the model that {}/{} names is refused, and {} goes on: {}", folder, CURRENT, running.version(),
                        error.getMessage());
            }
            seen = text;
            told = "";
        } catch (FileNotFoundException error) {
            LOG.debug("nothing to follow yet", error);
        } catch (IOException error) { // the store may answer the next time
            if (!told.equals(error.toString())) LOG.error("what {} names cannot be read; trying on", folder, error);
            told = error.toString();
        }
    }

    private Model next(Running running, JsonNode current) throws IOException {
        String file = current.path("file").asText();
        if (!file.matches("[A-Za-z0-9][A-Za-z0-9._-]*")) throw new IllegalArgumentException("no file's name: " + Text.quoted(file));
        Graph graph = Graph.of(current.path("graph"));
        graph.checkReplaces(running.config.graph());
        Config config = running.config;
        int tries = Math.max(1, config.warmup());
        return Model.load(read(file), graph, current.path("model_version").asText(), config.threads(), tries);
    }

    private byte[] read(String name) throws IOException {
        Path path = new Path(folder, name);
        try (InputStream file = path.getFileSystem(hadoop).open(path)) {
            return file.readAllBytes();
        }
    }
}
