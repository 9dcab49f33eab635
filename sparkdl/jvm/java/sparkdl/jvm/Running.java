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

    static Running start(Config config, Broadcast<byte[]> content) {
        Version.check(config.version());
        Running running = new Running(config);
        running.model.set(
                Model.load(content.value(), config.graph(), config.modelVersion(), config.threads(), config.warmup()));
        return running;
    }

    Model model() {
        return model.get();
    }
}
