package sparkdl.jvm;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;

/** The models of this JVM, shared by all tasks of the application. */
final class Models {
    private static final long IDLE_MINUTES = 15; // without a row: then a model is let go; a later row loads it anew
    private static final Map<String, Running> BY_CONFIG = new ConcurrentHashMap<>();
    private static final ScheduledExecutorService SWEEPER = Executors.newSingleThreadScheduledExecutor(task -> {
        Thread thread = new Thread(task, "sparkdl-lets-go");
        thread.setDaemon(true);
        return thread;
    });
    private static SparkEnv application;

    static {
        SWEEPER.scheduleWithFixedDelay(() -> sweep(TimeUnit.MINUTES.toNanos(IDLE_MINUTES)), 1, 1, TimeUnit.MINUTES);
    }

    private Models() {}

    /** What runs by this configuration, loaded on the first call. One that loads keeps no other waiting. */
    static Running of(String json, Broadcast<byte[]> content) {
        letGoOfAnother();
        Running running = BY_CONFIG.computeIfAbsent(json, told -> new Running(Config.of(told)));
        running.begin(content);
        return running;
    }

    /** End what had no row for so long. */
    static void sweep(long nanos) {
        BY_CONFIG.forEach((json, running) -> {
            if (running.isIdle(nanos) && BY_CONFIG.remove(json, running)) running.end();
        });
    }

    private static synchronized void letGoOfAnother() {
        if (application == SparkEnv.get()) return;
        application = SparkEnv.get();
        sweep(Long.MIN_VALUE);
    }
}
