package sparkdl.jvm;

import org.apache.spark.broadcast.Broadcast;

/** The model that scores just now, by one configuration. */
final class Running {
    final Config config;
    private volatile Model model;
    private volatile boolean isOver;
    private volatile long used = System.nanoTime();

    Running(Config config) {
        this.config = config;
    }

    /**
     * Load, on the first call, the current model of the folder that is followed, else the one that came with the query.
     *
     * @throws IllegalStateException where the folder's current model is refused: this JVM would score by another than the others
     */
    synchronized void begin(Broadcast<byte[]> content) {
        if (isOver || model != null) return;
        Version.check(config.version());
        if (config.follow().isEmpty()) {
            set(sent(content));
        } else {
            Follower follower = new Follower(this);
            Model current = follower.first();
            set(current != null ? current : sent(content));
            follower.start();
        }
        used();
    }

    private Model sent(Broadcast<byte[]> content) {
        return Model.load(content.value(), config.graph(), config.modelVersion(), config.threads(), config.warmup());
    }

    /** Null before it began and after it ended. */
    Model model() {
        return model;
    }

    String version() {
        Model now = model;
        return now == null ? config.modelVersion() : now.version;
    }

    boolean isOver() {
        return isOver;
    }

    /** A row is scored just now. */
    void used() {
        used = System.nanoTime();
    }

    boolean isIdle(long nanos) {
        return System.nanoTime() - used > nanos;
    }

    /** The next record is scored by this model; the one before is closed behind its last row. */
    synchronized void takeOver(Model next) {
        if (isOver) {
            next.close();
            return;
        }
        Model before = model;
        Metrics.here().swaps.inc();
        set(next);
        before.close();
    }

    /** Close the model behind its last row; who follows for it stops. */
    synchronized void end() {
        isOver = true;
        Model last = model;
        model = null;
        if (last != null) last.close();
    }

    private void set(Model next) {
        model = next;
        if (config.reports()) Metrics.here().runs(next.version);
    }
}
