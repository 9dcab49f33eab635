package sparkdl.jvm;

import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.spark.SparkEnv;
import org.apache.spark.broadcast.Broadcast;

/** The models of this JVM, shared by all tasks of the application. */
final class Models {
    private static final int MOST = 8; // those used longest ago are let go; a task that scores with one keeps it
    private static final Map<String, Running> BY_CONFIG = new LinkedHashMap<>(16, 0.75f, true) {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Running> eldest) {
            return size() > MOST;
        }
    };
    private static SparkEnv application;

    private Models() {}

    /** What runs by this configuration, loaded on the first call. */
    static synchronized Running of(String json, Broadcast<byte[]> content) {
        if (application != SparkEnv.get()) {
            application = SparkEnv.get();
            BY_CONFIG.clear();
        }
        return BY_CONFIG.computeIfAbsent(json, told -> Running.start(Config.of(told), content));
    }
}
