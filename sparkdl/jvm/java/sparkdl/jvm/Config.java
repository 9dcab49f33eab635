package sparkdl.jvm;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.List;
import java.util.Locale;

/**
 * What Python tells of a scorer.
 *
 * @param columns of a row, in order
 * @param gives what is made of a row: its answers with what is wrong and the model's version, the answers, or the only one
 * @param keep true: a bad row gives nulls and what is wrong; false: it ends the job
 * @param record behind its columns a row has why its record could not be parsed, null if it could, and the record's timestamp
 * @param warmup made-up rows that are run before the first one
 * @param follow the folder whose current.json names the model to run, or ""
 */
record Config(
        String version,
        String modelVersion,
        Graph graph,
        List<String> columns,
        Gives gives,
        int threads,
        boolean keep,
        boolean record,
        int warmup,
        String follow,
        long everyMs) {

    /** True where a query in real time asks: what else scores in this JVM is not counted among its rows. */
    boolean reports() {
        return record || !follow.isEmpty();
    }

    enum Gives { RECORD, ANSWERS, VALUE }

    private static final ObjectMapper JSON = new ObjectMapper();

    static Config of(String json) {
        JsonNode told = parsed(json);
        JsonNode follow = told.path("follow");
        return new Config(
                told.path("version").asText(),
                told.path("model_version").asText(),
                Graph.of(told.path("graph")),
                Tensor.texts(told.path("columns")),
                Gives.valueOf(told.path("gives").asText().toUpperCase(Locale.ROOT)),
                Math.max(1, told.path("threads").asInt(1)),
                told.path("invalid").asText().equals("keep"),
                told.path("record").asBoolean(),
                told.path("warmup").asInt(),
                follow.path("uri").asText(""),
                Math.max(1, follow.path("everyMs").asLong(1000)));
    }

    static JsonNode parsed(String json) {
        try {
            return JSON.readTree(json);
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException("no JSON: " + error.getOriginalMessage(), error);
        }
    }
}
