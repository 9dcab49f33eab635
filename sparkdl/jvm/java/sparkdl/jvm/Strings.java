package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.util.Arrays;
import org.apache.spark.sql.Row;

/** A tensor of texts, one for each column. */
final class Strings implements Input {
    private final Tensor told;
    private final String[] texts;
    private OnnxTensor tensor;

    Strings(Tensor told) {
        if (told.isRagged() || told.size() != told.columns().size()) {
            throw new IllegalArgumentException("a tensor of strings has one for each column (got " + told.kind() + ")");
        }
        this.told = told;
        texts = new String[told.size()];
    }

    @Override
    public OnnxTensor read(Row row, int[] places) throws OrtException {
        for (int i = 0; i < places.length; i++) {
            Object cell = row.get(places[i]);
            if (cell == null && told.missing() == null) {
                throw Problem.of("null", told.columns().get(i), "a text", "None");
            }
            texts[i] = String.valueOf(cell == null ? told.missing() : cell);
        }
        return made();
    }

    @Override
    public OnnxTensor madeUp() throws OrtException {
        Arrays.fill(texts, "");
        return made();
    }

    @Override
    public void close() {
        if (tensor != null) tensor.close();
    }

    private OnnxTensor made() throws OrtException {
        close();
        tensor = OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), texts, told.batch(0));
        return tensor;
    }
}
