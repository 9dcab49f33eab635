package sparkdl.jvm;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Set;

/**
 * Refuses an ONNX file that would make the runtime read another file, or run what ONNX does not have.
 *
 * <p>The file is a protobuf message; only the fields that lead to tensors and nodes are followed. The numbers are those
 * of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
 */
final class SelfContained {
    private enum Message { MODEL, GRAPH, NODE, ATTRIBUTE, SPARSE, TENSOR, FUNCTION, OTHER }

    private static final Map<Message, Map<Integer, Message>> PARTS = Map.of(
            Message.MODEL, Map.of(7, Message.GRAPH, 20, Message.FUNCTION, 25, Message.FUNCTION),
            Message.GRAPH, Map.of(1, Message.NODE, 5, Message.TENSOR, 15, Message.SPARSE),
            Message.NODE, Map.of(5, Message.ATTRIBUTE),
            Message.ATTRIBUTE,
                    Map.of(5, Message.TENSOR, 6, Message.GRAPH, 10, Message.TENSOR, 11, Message.GRAPH, 22, Message.SPARSE,
                            23, Message.SPARSE),
            Message.SPARSE, Map.of(1, Message.TENSOR, 2, Message.TENSOR));
    private static final int EXTERNAL_DATA = 13; // of a tensor
    private static final int DATA_LOCATION = 14;
    private static final int DOMAIN = 7; // of a node
    private static final Set<String> DOMAINS = Set.of("", "ai.onnx", "ai.onnx.ml");
    private static final int DEEPEST = 64;
    private static final long LARGEST_TAG = 0xffff_ffffL; // the runtime would cut a larger one to these bits

    private final byte[] content;
    private int place;

    private SelfContained(byte[] content) {
        this.content = content;
    }

    /** Throws IllegalArgumentException for a file that is refused, or that is no protobuf message. */
    static void check(byte[] content) {
        try {
            new SelfContained(content).walk(Message.MODEL, content.length, 0);
        } catch (ArrayIndexOutOfBoundsException error) {
            throw refused("it is cut short");
        }
    }

    private void walk(Message message, int end, int depth) {
        if (depth > DEEPEST) throw refused("it is nested deeper than " + DEEPEST);
        while (place < end) {
            long tag = number();
            int field = (int) (tag >>> 3);
            if (tag < 8 || tag > LARGEST_TAG) throw refused("it is no protobuf message");
            switch ((int) (tag & 7)) {
                case 0 -> value(message, field, number());
                case 1 -> skip(8, end);
                case 5 -> skip(4, end);
                case 2 -> {
                    long length = number();
                    if (length < 0 || length > end - place) throw refused("it is cut short");
                    part(message, field, (int) length, depth);
                }
                default -> throw refused("it is no protobuf message");
            }
        }
        if (place != end) throw refused("it is cut short");
    }

    private void part(Message message, int field, int length, int depth) {
        Message inner = PARTS.getOrDefault(message, Map.of()).getOrDefault(field, Message.OTHER);
        if (inner == Message.FUNCTION) throw refused("it has functions, or training, of its own");
        if (message == Message.TENSOR && field == EXTERNAL_DATA) throw refused("a tensor of it lies in a further file");
        if (message == Message.NODE && field == DOMAIN) {
            String domain = new String(content, place, length, StandardCharsets.UTF_8);
            if (!DOMAINS.contains(domain)) throw refused("it has an operator of the domain " + Text.quoted(domain));
        }
        if (inner == Message.OTHER) {
            skip(length, place + length);
        } else {
            walk(inner, place + length, depth + 1);
        }
    }

    private void value(Message message, int field, long value) {
        if (message == Message.TENSOR && field == DATA_LOCATION && value != 0) {
            throw refused("a tensor of it lies in a further file");
        }
    }

    private void skip(int length, int end) {
        if (length > end - place) throw refused("it is cut short");
        place += length;
    }

    private long number() {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            byte next = content[place++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) return value;
        }
        throw refused("it is no protobuf message");
    }

    private static IllegalArgumentException refused(String why) {
        return new IllegalArgumentException("the ONNX model is refused: " + why);
    }
}
