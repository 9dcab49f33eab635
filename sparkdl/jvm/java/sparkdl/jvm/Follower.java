package sparkdl.jvm;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.spark.SparkEnv;
import org.apache.spark.deploy.SparkHadoopUtil;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Looks at a folder's current.json and gives the model that it names to whoever scores; a bad one is refused, once. */
final class Follower implements Runnable {
    private static final Logger LOG = LoggerFactory.getLogger(Follower.class);
    private static final String CURRENT = "current.json";

    private final Running running;
    private final SparkEnv application = SparkEnv.get();
    private final Configuration hadoop = SparkHadoopUtil.get().newConfiguration(application.conf());
    private final Path folder;
    private String seen = ""; // the text of current.json that was taken over or refused
    private String told = ""; // the trouble that was logged last

    Follower(Running running) {
        this.running = running;
        folder = new Path(running.config.follow());
    }

    void start() {
        Thread thread = new Thread(this, "sparkdl-follows-" + folder.getName());
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void run() {
        try {
            while (SparkEnv.get() == application && !running.isOver()) {
                Thread.sleep(running.config.everyMs());
                look();
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    /**
     * The model to begin with; null where none is named, or that cannot be told just now.
     *
     * @throws IllegalStateException where one is named, and is refused or cannot be read
     */
    Model first() {
        String text = current();
        try {
            return text == null ? null : named(text);
        } catch (Refused | IOException error) {
            String what = "this executor cannot score by what the others score by: ";
            throw new IllegalStateException(what + error.getMessage(), error);
        }
    }

    private void look() {
        String text = current();
        if (text == null || text.equals(seen)) return;
        try {
            running.takeOver(named(text));
            told = "";
        } catch (Refused refused) {
            Metrics.here().refusals.inc();
            LOG.error("{}, and {} goes on", refused.getMessage(), running.version(), refused.getCause());
        } catch (IOException error) {
            tell(error);
        }
    }

    private String current() {
        try {
            return new String(read(CURRENT), StandardCharsets.UTF_8);
        } catch (FileNotFoundException error) {
            LOG.debug("nothing to follow yet", error);
        } catch (IOException | RuntimeException error) {
            tell(error);
        }
        return null;
    }

    /** The store may answer the next time: it is logged once. */
    private void tell(Exception error) {
        if (!told.equals(error.toString())) LOG.error("what {} names cannot be read; trying on", folder, error);
        told = error.toString();
    }

    private Model named(String text) throws IOException, Refused {
        String version = "?";
        try {
            JsonNode current = Config.parsed(text);
            version = current.path("model_version").asText();
            String file = current.path("file").asText();
            if (!file.matches("[A-Za-z0-9][A-Za-z0-9._-]*")) {
                throw new IllegalArgumentException("no file's name: " + Text.quoted(file));
            }
            Config config = running.config;
            Graph graph = Graph.of(current.path("graph"));
            graph.checkReplaces(config.graph());
            Model model = Model.load(read(file), graph, version, config.threads(), Math.max(1, config.warmup()));
            seen = text;
            return model;
        } catch (RuntimeException | FileNotFoundException | OutOfMemoryError | LinkageError error) {
            seen = text;
            String what = "the model " + version + " that " + folder + "/" + CURRENT + " names is refused: ";
            throw new Refused(what + why(error), error);
        }
    }

    private static String why(Throwable error) {
        return error instanceof IllegalArgumentException ? error.getMessage() : error.toString();
    }

    private byte[] read(String name) throws IOException {
        Path path = new Path(folder, name);
        FileSystem store = path.getFileSystem(hadoop);
        long bytes = store.getFileStatus(path).getLen();
        if (bytes > Integer.MAX_VALUE) {
            throw new IllegalArgumentException(name + " has " + bytes + " bytes, and an array of Java 2^31 - 1 at most");
        }
        try (InputStream file = store.open(path)) {
            return file.readAllBytes();
        }
    }

    private static final class Refused extends Exception {
        Refused(String message, Throwable cause) {
            super(message, cause);
        }
    }
}
