package sparkdl.jvm;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;

/**
 * One input or output of a graph, as the graph's JSON tells of it.
 *
 * @param shape of one row; a first size of -1 varies
 * @param maskOf the input whose values this one marks, or ""
 * @param missing what a null becomes: null (the row is bad), Double.NaN, or a text
 * @param buckets of which the tensor tells the one of a cell's text; null: the cell itself
 */
record Tensor(
        String name,
        Dtype dtype,
        int[] shape,
        List<String> columns,
        List<String> types,
        String maskOf,
        Object missing,
        boolean refusesNan,
        boolean refusesInf,
        Buckets buckets) {
    private static final Set<String> KNOWN =
            Set.of("name", "dtype", "shape", "columns", "types", "mask_of", "missing", "refuses", "hashed");

    static Tensor of(JsonNode told) {
        told.fieldNames().forEachRemaining(name -> {
            if (!KNOWN.contains(name)) {
                throw new IllegalArgumentException("the graph tells " + Text.quoted(name) + " of a tensor, which is not known here");
            }
        });
        List<String> refuses = texts(told.path("refuses"));
        JsonNode missing = told.path("missing");
        int[] shape = new int[told.path("shape").size()];
        Arrays.setAll(shape, i -> told.path("shape").get(i).asInt());
        return new Tensor(
                told.path("name").asText(),
                Dtype.named(told.path("dtype").asText()),
                shape,
                texts(told.path("columns")),
                texts(told.path("types")),
                told.path("mask_of").asText(""),
                missing.isTextual() ? (Object) Double.NaN : missing.has("text") ? missing.get("text").asText() : null,
                refuses.contains("nan"),
                refuses.contains("inf"),
                Buckets.of(told.path("hashed")));
    }

    static List<Tensor> all(JsonNode told) {
        List<Tensor> all = new ArrayList<>();
        told.forEach(one -> all.add(of(one)));
        return all;
    }

    /** Throws IllegalArgumentException for an input that makes no sense among these, as sparkdl/graph/graph.py refuses it. */
    void checkInput(List<Tensor> all) {
        check(columns.size() == types.size() && columns.isEmpty() != maskOf.isEmpty(), "columns " + columns + " of " + types);
        check(Arrays.stream(shape).skip(1).allMatch(size -> size >= 0) && (shape.length == 0 || shape[0] >= -1), "a size below 0");
        check(columns.size() <= 1 || types.stream().allMatch(type -> form(type).indexOf('[') < 0), "stacked arrays");
        check(missing == null || (missing instanceof String ? dtype == Dtype.STRING : dtype.isFloat()), "missing " + missing);
        check(buckets == null || (buckets.count >= 2 && buckets.seed >= 0), "hashed " + buckets);
        check(maskOf.isEmpty() || (isNumbers() && Arrays.equals(shape, new int[] {-1})), "a mask");
        check(maskOf.isEmpty() || all.stream().anyMatch(one -> one.name.equals(maskOf) && one.isMaskable()),
                "the mask of " + Text.quoted(maskOf) + ", which is no input of numbers whose length varies");
    }

    /** Throws IllegalArgumentException for an output whose size is not told. */
    void checkOutput() {
        check(isFixed(), "a size below 0");
    }

    private void check(boolean fits, String what) {
        if (!fits) throw new IllegalArgumentException("the graph's " + Text.quoted(name) + ", a " + kind() + ", has " + what);
    }

    private boolean isMaskable() {
        return isRagged() && isNumbers() && maskOf.isEmpty();
    }

    private boolean isNumbers() {
        return dtype != Dtype.STRING && buckets == null;
    }

    boolean isRagged() {
        return shape.length > 0 && shape[0] < 0;
    }

    boolean isFixed() {
        return Arrays.stream(shape).allMatch(size -> size >= 0);
    }

    /** Elements of one row; of a ragged one, of one of its steps. */
    int size() {
        return Arrays.stream(shape).filter(size -> size >= 0).reduce(1, Math::multiplyExact);
    }

    /** Of a batch of one row; {@code length} is the first size if that varies. */
    long[] batch(long length) {
        long[] whole = new long[shape.length + 1];
        whole[0] = 1;
        for (int i = 0; i < shape.length; i++) whole[i + 1] = shape[i] < 0 ? length : shape[i];
        return whole;
    }

    String kind() {
        return dtype.text() + Arrays.toString(shape);
    }

    /** How a column of this type is read: as numbers, text or bytes, and how deep its arrays are. */
    static String form(String type) {
        String leaf = type.replaceAll("array<|>", "");
        String read = Set.of("string", "binary", "date", "timestamp", "timestamp_ntz").contains(leaf) ? leaf : "number";
        return read + "[]".repeat(depth(type));
    }

    static int depth(String type) {
        return type.split("array<", -1).length - 1 + (type.endsWith("vector") ? 1 : 0);
    }

    static List<String> texts(JsonNode told) {
        List<String> all = new ArrayList<>();
        told.forEach(one -> all.add(one.asText()));
        return all;
    }

    /** How many, 0 that of a null among them, and by which seed. */
    record Buckets(long count, long seed) {
        static Buckets of(JsonNode told) {
            return told.isMissingNode() ? null : new Buckets(told.path("count").asLong(), told.path("seed").asLong(-1));
        }
    }
}
