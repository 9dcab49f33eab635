package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Set;
import org.apache.spark.sql.Row;
import scala.collection.Seq;

/** A tensor of numbers. Where its size is fixed the tensor and its memory are made once and filled anew for each row. */
final class Numbers implements Input {
    private static final int KEPT = 1 << 20; // bytes; more, that a long row took, is given back
    private static final int SHORT_ROWS = 100; // after so many that need no more

    private final Tensor told;
    private final int depth; // of arrays in the column
    private final int[] levels; // how long each is
    private final int steps; // values to a step, where a row of varying length is one flat array
    private final String whole;
    private ByteBuffer memory;
    private OnnxTensor tensor;
    private int length; // of this row, where it varies
    private int shortRows; // since one that needs more than is kept

    Numbers(Tensor told) throws OrtException {
        this.told = told;
        boolean isStacked = told.columns().size() > 1;
        depth = isStacked || told.columns().isEmpty() ? 0 : Tensor.depth(told.types().get(0));
        checkForm(told, depth);
        boolean isFlatRagged = told.isRagged() && depth != told.shape().length;
        levels = depth == told.shape().length ? told.shape() : isFlatRagged ? new int[] {-1} : new int[] {told.size()};
        steps = isFlatRagged ? told.size() : 1;
        whole = isStacked ? told.dtype().text() + "[]" : told.kind();
        reserve(told.size());
        if (!told.isRagged()) tensor = tensor(0);
    }

    private static void checkForm(Tensor told, int depth) {
        boolean isBytes = depth == 0 && told.types().stream().anyMatch(Set.of("binary", "string")::contains);
        boolean isMask = told.columns().isEmpty();
        boolean isOne = told.columns().size() <= 1;
        boolean fits = depth == told.shape().length || (depth == 1 && told.shape().length > 0);
        if (isMask || (isOne ? isBytes || fits : told.shape().length == 1 && told.size() == told.columns().size())) return;
        throw new IllegalArgumentException("columns " + told.columns() + " of " + told.types() + " are no " + told.kind());
    }

    @Override
    public OnnxTensor read(Row row, int[] places) throws OrtException {
        for (int i = 0; i < places.length; i++) {
            String column = told.columns().get(i);
            Object cell = row.get(places[i]);
            if (cell != null) {
                fill(cell, i, column);
            } else if (told.missing() != null && depth == 0) {
                number(told.missing(), i, column);
            } else {
                throw told.refusesNan() ? noNumber(column) : Problem.of("null", column, whole, "None");
            }
        }
        return told.isRagged() ? varying() : tensor;
    }

    /** All ones, as long as the other input is in this row: a single row is not padded. */
    OnnxTensor mask(Numbers other) throws OrtException {
        length = Math.max(1, other.length);
        reserve(length);
        for (int i = 0; i < length; i++) told.dtype().put(memory, i, i < other.length ? 1L : 0L, told.name());
        return varying();
    }

    @Override
    public OnnxTensor madeUp() throws OrtException {
        length = 1;
        for (int i = 0; i < memory.capacity(); i++) memory.put(i, (byte) 0);
        return told.isRagged() ? varying() : tensor;
    }

    @Override
    public void close() {
        if (tensor != null) tensor.close();
    }

    private void fill(Object cell, int place, String column) {
        String type = told.types().get(place);
        if (depth > 0 && cell instanceof Seq<?> values) {
            nested(values, 0, 0, column);
        } else if (type.equals("binary") && cell instanceof byte[] bytes) {
            copy(bytes, column);
        } else if (type.equals("string") && cell instanceof String text) {
            characters(text.getBytes(StandardCharsets.UTF_8), column);
        } else if (depth == 0 && !(cell instanceof byte[] || cell instanceof String || cell instanceof Seq)) {
            number(cell, place, column);
        } else {
            String found = cell.getClass().getSimpleName();
            throw new IllegalArgumentException("column " + Text.quoted(column) + " holds " + found + "; the model takes " + type);
        }
    }

    /** Fill from this place on with an array of this level; the place behind it. */
    private int nested(Seq<?> values, int level, int place, String column) {
        int found = values.length();
        if (levels[level] >= 0 && found != levels[level]) {
            throw Problem.of("shape", column, levels[level] + " values", found + " values");
        }
        if (levels[level] < 0) {
            if (found % Math.max(steps, 1) != 0) throw Problem.of("shape", column, "a multiple of " + steps + " values", found);
            length = found / Math.max(steps, 1);
            reserve(Math.max(1, length) * told.size());
        }
        boolean isLeaf = level == levels.length - 1;
        for (int i = 0; i < found; i++) {
            Object value = values.apply(i);
            if (value == null) throw insideNull(column);
            if (isLeaf) {
                number(value, place++, column, values, i);
            } else {
                place = nested((Seq<?>) value, level + 1, place, column);
            }
        }
        return place;
    }

    /** A number of an array. A null behind it is told of before a value that is refused, as in columns.py. */
    private void number(Object value, int place, String column, Seq<?> values, int i) {
        try {
            number(value, place, column);
        } catch (Problem problem) {
            for (int j = i + 1; j < values.length(); j++) if (values.apply(j) == null) throw insideNull(column);
            throw problem;
        }
    }

    private void number(Object value, int place, String column) {
        if (value instanceof Float number) {
            floating(number, place, column);
        } else if (value instanceof Double number) {
            floating(number, place, column);
        } else if (value instanceof java.math.BigDecimal number) {
            floating(number.doubleValue(), place, column);
        } else if (value instanceof Boolean flag) {
            told.dtype().put(memory, place, flag ? 1L : 0L, column);
        } else if (value instanceof Number number) {
            told.dtype().put(memory, place, number.longValue(), column);
        } else {
            told.dtype().put(memory, place, Times.number(value, column), column);
        }
    }

    private void floating(double value, int place, String column) {
        if (told.refusesNan() && Double.isNaN(value)) throw noNumber(column);
        if (told.refusesInf() && Double.isInfinite(value)) {
            throw Problem.of("non-finite", column, "a finite number", Text.number(value));
        }
        told.dtype().put(memory, place, value, column);
    }

    private void copy(byte[] bytes, String column) {
        int width = told.size() * told.dtype().bytes;
        boolean fits = told.isRagged() ? bytes.length % Math.max(width, 1) == 0 : bytes.length == width;
        if (!fits) {
            String expected = (told.isRagged() ? "a multiple of " : "") + width + " bytes (" + told.kind() + ")";
            throw Problem.of("shape", column, expected, bytes.length + " bytes");
        }
        if (told.isRagged()) {
            length = bytes.length / Math.max(width, 1);
            reserve(Math.max(1, length) * told.size());
        }
        memory.put(0, bytes);
    }

    private void characters(byte[] text, String column) {
        if (told.isRagged()) {
            length = text.length;
            reserve(Math.max(1, length));
        } else if (text.length > told.size()) {
            throw Problem.of("shape", column, "at most " + told.size() + " UTF-8 bytes", text.length + " bytes");
        }
        for (int i = 0; i < text.length; i++) told.dtype().put(memory, i, (long) (text[i] & 0xff), column);
        for (int i = text.length; i < told.size(); i++) told.dtype().put(memory, i, 0L, column);
    }

    private void reserve(int elements) {
        int bytes = Math.multiplyExact(Math.max(1, elements), told.dtype().bytes);
        shortRows = bytes > KEPT ? 0 : Math.min(shortRows, SHORT_ROWS) + 1;
        boolean isTooLarge = memory != null && memory.capacity() > KEPT && shortRows > SHORT_ROWS;
        if (memory == null || memory.capacity() < bytes || isTooLarge) {
            int spare = told.isRagged() && bytes <= KEPT / 2 ? 2 * bytes : bytes; // rows differ: the next may be longer
            memory = ByteBuffer.allocateDirect(spare)
                    .order(ByteOrder.nativeOrder()); // little-endian wherever ONNX Runtime is, as the bytes of a column
        }
    }

    private OnnxTensor varying() throws OrtException {
        close();
        if (length == 0) memory.put(0, new byte[told.size() * told.dtype().bytes]); // one step of zeros, as Python pads it
        tensor = tensor(Math.max(1, length));
        return tensor;
    }

    private OnnxTensor tensor(int length) throws OrtException {
        long[] shape = told.batch(length);
        long elements = Arrays.stream(shape).reduce(1, Math::multiplyExact);
        ByteBuffer part = memory.duplicate().order(ByteOrder.nativeOrder());
        part.position(0).limit(Math.toIntExact(elements * told.dtype().bytes));
        return OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), part, shape, told.dtype().onnx);
    }

    /** In the words of sparkdl/preprocess/numbers.py. */
    private static Problem noNumber(String column) {
        return Problem.of("null", column, "a number", "a null or NaN");
    }

    private static Problem insideNull(String column) {
        return Problem.of("null", column, "values that are not null", "a null inside the array");
    }
}
