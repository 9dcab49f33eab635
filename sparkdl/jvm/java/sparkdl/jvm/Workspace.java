package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.spark.sql.Row;

/** The memory in which one thread at a time scores a row: the tensors of a model's inputs and outputs. */
final class Workspace implements AutoCloseable {
    private final Graph graph;
    private final List<Input> inputs = new ArrayList<>();
    private final List<Output> outputs = new ArrayList<>();
    private final Map<String, Input> byName = new HashMap<>();
    private final Map<String, OnnxTensor> given = new HashMap<>();
    private final Map<String, OnnxTensor> pinned = new HashMap<>();
    private final Set<String> asked = new HashSet<>();

    Workspace(Graph graph) throws OrtException {
        this.graph = graph;
        try {
            make();
        } catch (OrtException | RuntimeException | Error error) {
            close();
            throw error;
        }
    }

    private void make() throws OrtException {
        for (Tensor told : graph.inputs()) {
            Input input = Input.of(told);
            inputs.add(input);
            byName.put(told.name(), input);
        }
        for (Tensor told : graph.outputs()) {
            Output output = new Output(told);
            outputs.add(output);
            if (output.pinned == null) asked.add(told.name());
            else pinned.put(told.name(), output.pinned);
        }
    }

    /** The answers of a row, into the first fields. Throws Problem for a row that is bad. */
    void score(OrtSession session, Row row, int[][] places, Object[] answers) throws OrtException {
        for (int i = 0; i < inputs.size(); i++) {
            Tensor told = graph.inputs().get(i);
            if (told.maskOf().isEmpty()) given.put(told.name(), inputs.get(i).read(row, places[i]));
        }
        for (int i = 0; i < inputs.size(); i++) {
            Tensor told = graph.inputs().get(i);
            if (!told.maskOf().isEmpty()) {
                given.put(told.name(), ((Numbers) inputs.get(i)).mask((Numbers) byName.get(told.maskOf())));
            }
        }
        run(session, answers);
    }

    /** Run a made-up row. */
    void tryOut(OrtSession session) throws OrtException {
        for (int i = 0; i < inputs.size(); i++) given.put(graph.inputs().get(i).name(), inputs.get(i).madeUp());
        session.run(given, asked, pinned).close();
    }

    private void run(OrtSession session, Object[] answers) throws OrtException {
        OrtSession.Result result;
        try {
            result = session.run(given, asked, pinned);
        } catch (OrtException error) {
            throw Problem.failed(error);
        }
        try (result) {
            for (int i = 0; i < outputs.size(); i++) {
                Output output = outputs.get(i);
                answers[i] = output.value(
                        output.pinned != null ? output.pinned : (OnnxTensor) result.get(output.told.name()).orElseThrow());
            }
        }
    }

    @Override
    public void close() {
        inputs.forEach(Input::close);
        outputs.forEach(Output::close);
    }
}
