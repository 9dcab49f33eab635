package sparkdl.jvm;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataType;

/** Scores a row: a struct of a model's columns in; its answers, what is wrong, and the model's version out. */
public final class Scorer implements UDF1<Row, Row> {
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
        Graph graph = Config.of(config).graph();
        byte[] content = graph.checked(Files.readAllBytes(Path.of(file)));
        SelfContained.check(content);
        return new Scorer(config, spark.broadcast(content));
    }

    /** As a function of Spark's expressions; the DDL is that of its answers. Never run twice for one row by the optimiser. */
    public UserDefinedFunction function(String ddl) {
        return functions.udf(this, DataType.fromDDL(ddl)).asNondeterministic();
    }

    @Override
    public Row call(Row row) {
        Reading now = reading(row);
        Model model = now.model;
        int answers = model.graph.outputs().size();
        Object[] made = new Object[answers + 2];
        made[answers + 1] = model.version;
        try {
            model.score(row, now.places, made);
        } catch (Problem problem) {
            if (!now.running.config.keep()) throw problem;
            for (int i = 0; i < answers; i++) made[i] = null;
            made[answers] = problem.reason();
        }
        return RowFactory.create(made);
    }

    private Reading reading(Row row) {
        Reading now = reading;
        if (now == null) {
            now = new Reading(Models.of(config, content), null, null);
        }
        Model model = now.running.model();
        if (model != now.model) {
            now = new Reading(now.running, model, places(model.graph, row));
            reading = now;
        }
        return now;
    }

    private static int[][] places(Graph graph, Row row) {
        return graph.inputs().stream()
                .map(input -> input.columns().stream().mapToInt(row::fieldIndex).toArray())
                .toArray(int[][]::new);
    }

    /** The model of the last row, and where its columns are in a row: one value, for threads may share a scorer. */
    private record Reading(Running running, Model model, int[][] places) {}
}
