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
 * Scores a row: a struct of a model's columns in, and the record's timestamp if the configuration says so; out, as it says,
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
        Model.load(content, told.graph(), told.modelVersion(), 1, 0); // what is wrong with it is told here, not by a task
        return new Scorer(config, spark.broadcast(content));
    }

    /** As a function of Spark's expressions that gives this type (DDL). The optimiser does not run it twice for a row. */
    public UserDefinedFunction function(String type) {
        return functions.udf(this, DataType.fromDDL(type)).asNondeterministic();
    }

    @Override
    public Object call(Row row) {
        Reading now = reading();
        Config told = now.running.config;
        int answers = now.model.graph.outputs().size();
        Object[] made = new Object[told.gives() == Config.Gives.RECORD ? answers + 2 : answers];
        String wrong = null;
        try {
            now.model.score(row, now.places, made);
        } catch (Problem problem) {
            if (!told.keep()) throw problem.ending();
            Arrays.fill(made, null);
            wrong = problem.reason();
            if (counts(row, told)) now.metrics.deadLetters.mark();
        }
        if (counts(row, told)) {
            now.metrics.rows.mark();
            if (told.timestamp()) now.metrics.scored(row.get(row.length() - 1));
        }
        if (told.gives() == Config.Gives.VALUE) return made[0];
        if (told.gives() == Config.Gives.ANSWERS) return wrong == null ? RowFactory.create(made) : null;
        made[answers] = wrong;
        made[answers + 1] = now.model.version;
        return RowFactory.create(made);
    }

    /** False for a row that was made up to warm the JVM: it lacks its timestamp. */
    private static boolean counts(Row row, Config told) {
        return !told.timestamp() || !row.isNullAt(row.length() - 1);
    }

    private Reading reading() {
        Reading now = reading;
        if (now == null) now = new Reading(Models.of(config, content), Metrics.here(), null, null);
        Model model = now.running.model();
        if (model != now.model) {
            int[][] places = model.graph.places(now.running.config.columns());
            now = new Reading(now.running, now.metrics, model, places);
            reading = now;
        }
        return now;
    }

    /** The model of the last row, and where its columns are in a row: one value, for threads may share a scorer. */
    private record Reading(Running running, Metrics metrics, Model model, int[][] places) {}
}
