package sparkdl.jvm;

import com.codahale.metrics.Counter;
import com.codahale.metrics.Gauge;
import com.codahale.metrics.Histogram;
import com.codahale.metrics.Meter;
import com.codahale.metrics.MetricRegistry;
import org.apache.spark.SparkEnv;
import org.apache.spark.metrics.source.Source;

/** What this JVM's scorers did, as the source {@code sparkdl} of Spark's own metrics system. */
public final class Metrics implements Source {
    private static final String NAME = "sparkdl";
    private static SparkEnv application;
    private static Metrics here;

    private final MetricRegistry registry = new MetricRegistry();
    /** Records scored, bad ones too. */
    final Meter rows = registry.meter("rows");
    /** Of these, bad ones. */
    final Meter deadLetters = registry.meter("deadLetters");
    /** Models taken over while others ran. */
    final Counter swaps = registry.counter("swaps");
    /** Models that were to be taken over, and were refused. */
    final Counter refusals = registry.counter("refusals");
    /** Milliseconds from a record's timestamp until it was scored. */
    final Histogram latency = registry.histogram("latencyMs");

    private volatile String version = "";

    private Metrics() {
        registry.register("modelVersion", (Gauge<Object>) this::told);
    }

    /** Those of the application that runs here. */
    public static synchronized Metrics here() {
        if (here == null || application != SparkEnv.get()) {
            application = SparkEnv.get();
            here = new Metrics();
            application.metricsSystem().registerSource(here);
        }
        return here;
    }

    /** A record of this timestamp (or null) was scored just now. */
    void scored(Object timestamp) {
        if (timestamp != null) latency.update(System.currentTimeMillis() - Times.millis(timestamp));
    }

    void runs(String modelVersion) {
        version = modelVersion;
    }

    /** A number where it is one: Prometheus takes no other. */
    private Object told() {
        try {
            return Long.valueOf(version);
        } catch (NumberFormatException error) {
            return version;
        }
    }

    @Override
    public String sourceName() {
        return NAME;
    }

    @Override
    public MetricRegistry metricRegistry() {
        return registry;
    }
}
