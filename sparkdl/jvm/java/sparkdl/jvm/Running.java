package sparkdl.jvm;

import java.util.concurrent.atomic.AtomicReference;
import org.apache.spark.broadcast.Broadcast;

/** The model that scores just now, by one configuration. */
final class Running {
    final Config config;
    private final AtomicReference<Model> model = new AtomicReference<>();

    private Running(Config config) {
        this.config = config;
    }

    /** Of the folder that is followed the current model, else the one that came with the query. */
    static Running start(Config config, Broadcast<byte[]> content) {
        Version.check(config.version());
        Running running = new Running(config);
        if (!config.follow().isEmpty()) {
            Follower follower = new Follower(running);
            follower.look(running);
            follower.start();
        }
        if (running.model() == null) {
            running.set(
                    Model.load(content.value(), config.graph(), config.modelVersion(), config.threads(), config.warmup()));
        }
        return running;
    }

    Model model() {
        return model.get();
    }

    String version() {
        Model now = model();
        return now == null ? config.modelVersion() : now.version;
    }

    /** The next record is scored by this model. */
    void takeOver(Model next) {
        if (model() != null) Metrics.here().swaps.inc();
        set(next);
    }

    private void set(Model next) {
        model.set(next);
        Metrics.here().runs(next.version);
    }
}
