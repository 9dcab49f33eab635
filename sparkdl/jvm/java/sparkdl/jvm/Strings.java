package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.math.BigDecimal;
import java.util.Arrays;
import org.apache.spark.sql.Row;

/** A tensor of texts, one for each column. */
final class Strings implements Input {
    private static final double WHOLE = 0x1p63;

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
            String cell = text(row.get(places[i]));
            if (cell == null && told.missing() == null) {
                throw Problem.of("null", told.columns().get(i), told.kind(), "None");
            }
            texts[i] = cell == null ? (String) told.missing() : cell;
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

    /** The text that tells a cell from others, as in sparkdl/preprocess/cells.py: 2 of 2 and of 2.0; null of a fraction. */
    static String text(Object cell) {
        if (cell instanceof Float || cell instanceof Double || cell instanceof BigDecimal) {
            double value = ((Number) cell).doubleValue();
            return Math.floor(value) == value && Math.abs(value) < WHOLE ? Long.toString((long) value) : null;
        }
        return cell == null ? null : cell.toString();
    }

    private OnnxTensor made() throws OrtException {
        close();
        tensor = OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), texts, told.batch(0));
        return tensor;
    }
}
