package sparkdl.jvm;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataType;

/**
 * Scores a row: a struct of a model's columns in, with what is told of its record if the configuration says so; out, as it says,
 * a struct of the answers, what is wrong and the model's version, or of the answers, or the only answer.
 */
public final class Scorer implements UDF1<Row, Object> {
    private static final long serialVersionUID = 1L;

    private final String config;
    private final Broadcast<byte[]> content;
    private transient volatile Reading reading;

    private Scorer(String config, Broadcast<byte[]> content) {
        this.config = config;
        this.content = content;
    }

    /** A scorer by this configuration (JSON) of the ONNX model in a local file, which is not needed afterwards. */
    public static Scorer of(JavaSparkContext spark, String config, String file) throws IOException {
        Config told = Config.of(config);
        told.graph().places(told.columns());
        byte[] content = Files.readAllBytes(Path.of(file));
        Model.load(content, told.graph(), told.modelVersion(), 1, 0).close(); // what is wrong with it is told here, not by a task
        return new Scorer(config, spark.broadcast(content));
    }

    /** As a function of Spark's expressions that gives this type (DDL). The optimiser does not run it twice for a row. */
    public UserDefinedFunction function(String type) {
        return functions.udf(this, DataType.fromDDL(type)).asNondeterministic();
    }

    @Override
    public Object call(Row row) {
        Reading now = reading();
        while (!now.model.take()) now = reading(); // another took over just now
        now.running.used();
        try (now.model) {
            return scored(row, now);
        }
    }

    private static Object scored(Row row, Reading now) {
        Config told = now.running.config;
        int answers = now.model.graph.outputs().size();
        Object[] made = new Object[told.gives() == Config.Gives.RECORD ? answers + 2 : answers];
        String wrong = told.record() ? row.getString(row.length() - 2) : null;
        String version = wrong == null ? now.model.version : null; // no model has seen what cannot be parsed
        try {
            if (wrong == null) now.model.score(row, now.places, made);
        } catch (Problem problem) {
            if (!told.keep()) throw problem.ending();
            Arrays.fill(made, null);
            wrong = problem.reason();
        }
        if (told.reports()) {
            now.metrics.rows.mark();
            if (wrong != null) now.metrics.deadLetters.mark();
            if (told.record()) now.metrics.scored(row.get(row.length() - 1));
        }
        if (told.gives() == Config.Gives.VALUE) return made[0];
        if (told.gives() == Config.Gives.ANSWERS) return wrong == null ? RowFactory.create(made) : null;
        made[answers] = wrong;
        made[answers + 1] = version;
        return RowFactory.create(made);
    }

    private Reading reading() {
        Reading now = reading;
        Running running = now == null ? null : now.running;
        Model model = running == null ? null : running.model();
        while (model == null) { // on the first row, and behind a long time without one
            running = Models.of(config, content);
            model = running.model();
        }
        if (now == null || model != now.model) {
            now = new Reading(running, Metrics.here(), model, model.graph.places(running.config.columns()));
            reading = now;
        }
        return now;
    }

    /** The model of the last row, and where its columns are in a row: one value, for threads may share a scorer. */
    private record Reading(Running running, Metrics metrics, Model model, int[][] places) {}
}
