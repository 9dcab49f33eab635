package sparkdl.jvm;

import com.fasterxml.jackson.databind.JsonNode;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/** What goes into a model and what comes out. */
record Graph(List<Tensor> inputs, List<Tensor> outputs, String sha256) {
    static Graph of(JsonNode told) {
        Graph graph = new Graph(
                Tensor.all(told.path("inputs")), Tensor.all(told.path("outputs")), told.path("sha256").asText());
        if (graph.inputs.isEmpty() || graph.outputs.isEmpty()) {
            throw new IllegalArgumentException("a graph needs inputs and outputs (got " + told + ")");
        }
        return graph;
    }

    /** The columns that are read, each once. */
    Set<String> columns() {
        return inputs.stream().flatMap(one -> one.columns().stream())
                .collect(Collectors.toCollection(LinkedHashSet::new));
    }

    /** The bytes, if they are those that the digest tells of. */
    byte[] checked(byte[] model) {
        String found = digest(model);
        if (!found.equals(sha256)) {
            throw new IllegalArgumentException(
                    "the ONNX model is refused: its sha256 is " + found + ", and the graph tells of " + sha256);
        }
        return model;
    }

    static String digest(byte[] content) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java has it
        }
    }
}
