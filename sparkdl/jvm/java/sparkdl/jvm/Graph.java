package sparkdl.jvm;

import com.fasterxml.jackson.databind.JsonNode;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** What goes into a model and what comes out. */
record Graph(List<Tensor> inputs, List<Tensor> outputs, String sha256) {
    static Graph of(JsonNode told) {
        Graph graph = new Graph(
                Tensor.all(told.path("inputs")), Tensor.all(told.path("outputs")), told.path("sha256").asText());
        if (graph.inputs.isEmpty() || graph.outputs.isEmpty()) {
            throw new IllegalArgumentException("a graph needs inputs and outputs (got " + told + ")");
        }
        graph.inputs.forEach(one -> one.checkInput(graph.inputs));
        graph.outputs.forEach(Tensor::checkOutput);
        return graph;
    }

    /** For each input the places of its columns among these. Throws IllegalArgumentException where one is not among them. */
    int[][] places(List<String> columns) {
        for (Tensor input : inputs) {
            for (String name : input.columns()) {
                if (!columns.contains(name)) {
                    throw new IllegalArgumentException("the graph reads the column " + Text.quoted(name) + ", and a row has " + columns);
                }
            }
        }
        return inputs.stream()
                .map(input -> input.columns().stream().mapToInt(columns::indexOf).toArray())
                .toArray(int[][]::new);
    }

    /** Throws IllegalArgumentException unless this graph reads columns, and gives answers, that a query with the other has. */
    void checkReplaces(Graph other) {
        Map<String, String> here = other.forms();
        forms().forEach((column, form) -> {
            if (!form.equals(here.get(column))) {
                throw new IllegalArgumentException(
                        "it reads the column " + Text.quoted(column) + " as " + form + ", and the query has " + here);
            }
        });
        if (!answers().equals(other.answers())) {
            throw new IllegalArgumentException("it gives " + answers() + ", and the query has " + other.answers());
        }
    }

    private Map<String, String> forms() {
        Map<String, String> all = new TreeMap<>();
        for (Tensor one : inputs) {
            for (int i = 0; i < one.columns().size(); i++) {
                String column = one.columns().get(i);
                String form = Tensor.form(one.types().get(i));
                String before = all.put(column, form);
                if (before != null && !before.equals(form)) {
                    throw new IllegalArgumentException("it reads the column " + Text.quoted(column) + " as " + before + " and as " + form);
                }
            }
        }
        return all;
    }

    private List<String> answers() {
        return outputs.stream().map(one -> one.name() + ": " + one.dtype().text() + "[]".repeat(one.shape().length)).toList();
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
