package sparkdl.jvm;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.platform.Fp16Conversions;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Locale;

/** A tensor's type, by numpy's name: how a number is put into its memory, checked as sparkdl/columns.py checks it. */
enum Dtype {
    BOOL(1, OnnxJavaType.BOOL, 0, 1),
    UINT8(1, OnnxJavaType.UINT8, 0, 255),
    INT8(1, OnnxJavaType.INT8, Byte.MIN_VALUE, Byte.MAX_VALUE),
    INT16(2, OnnxJavaType.INT16, Short.MIN_VALUE, Short.MAX_VALUE),
    INT32(4, OnnxJavaType.INT32, Integer.MIN_VALUE, Integer.MAX_VALUE),
    INT64(8, OnnxJavaType.INT64, Long.MIN_VALUE, Long.MAX_VALUE),
    FLOAT16(2, OnnxJavaType.FLOAT16, 0, 0),
    FLOAT32(4, OnnxJavaType.FLOAT, 0, 0),
    FLOAT64(8, OnnxJavaType.DOUBLE, 0, 0),
    STRING(0, OnnxJavaType.STRING, 0, 0);

    final int bytes;
    final OnnxJavaType onnx;
    private final long least;
    private final long most;

    Dtype(int bytes, OnnxJavaType onnx, long least, long most) {
        this.bytes = bytes;
        this.onnx = onnx;
        this.least = least;
        this.most = most;
    }

    static Dtype named(String name) {
        return Arrays.stream(values())
                .filter(one -> one.text().equals(name))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("no dtype of a tensor: " + name));
    }

    String text() {
        return name().toLowerCase(Locale.ROOT);
    }

    boolean isFloat() {
        return this == FLOAT16 || this == FLOAT32 || this == FLOAT64;
    }

    /** Put a whole number at this place. */
    void put(ByteBuffer to, int place, long value, String column) {
        if (this != BOOL && !isFloat() && (value < least || value > most)) {
            throw Problem.of("value", column, "a value that " + text() + " holds", value);
        }
        switch (this) {
            case BOOL -> to.put(place, (byte) (value != 0 ? 1 : 0));
            case UINT8, INT8 -> to.put(place, (byte) value);
            case INT16 -> to.putShort(2 * place, (short) value);
            case INT32 -> to.putInt(4 * place, (int) value);
            case INT64 -> to.putLong(8 * place, value);
            case FLOAT16 -> to.putShort(2 * place, Fp16Conversions.floatToFp16(value));
            case FLOAT32 -> to.putFloat(4 * place, value);
            case FLOAT64 -> to.putDouble(8 * place, value);
            case STRING -> throw new IllegalStateException("a number for a tensor of strings");
        }
    }

    /** Put a floating number at this place. */
    void put(ByteBuffer to, int place, double value, String column) {
        switch (this) {
            case FLOAT64 -> to.putDouble(8 * place, value);
            case FLOAT32 -> {
                float narrow = (float) value;
                if (Float.isInfinite(narrow) && !Double.isInfinite(value)) throw tooLarge(value, column);
                to.putFloat(4 * place, narrow);
            }
            case FLOAT16 -> {
                short narrow = Fp16Conversions.floatToFp16((float) value);
                if (Float.isInfinite(Fp16Conversions.fp16ToFloat(narrow)) && !Double.isInfinite(value)) {
                    throw tooLarge(value, column);
                }
                to.putShort(2 * place, narrow);
            }
            default -> {
                if (!(value % 1 == 0)) { // NaN and infinities too
                    throw Problem.of("value", column, "whole numbers (" + text() + ")", Text.number(value));
                }
                if (this != BOOL && (value < least || value >= most + 1.0)) throw tooLarge(value, column);
                put(to, place, this == BOOL ? (value != 0 ? 1L : 0L) : (long) value, column);
            }
        }
    }

    private Problem tooLarge(double value, String column) {
        return Problem.of("value", column, "a value that " + text() + " holds", Text.number(value));
    }

    /** The floating number at this place. */
    double floating(ByteBuffer from, int place) {
        return switch (this) {
            case FLOAT16 -> Fp16Conversions.fp16ToFloat(from.getShort(2 * place));
            case FLOAT32 -> from.getFloat(4 * place);
            default -> from.getDouble(8 * place);
        };
    }

    /** The value at this place, of the Spark type that sparkdl/columns.py gives this dtype. */
    Object value(ByteBuffer from, int place) {
        return switch (this) {
            case BOOL -> from.get(place) != 0;
            case UINT8 -> (short) (from.get(place) & 0xff); // Spark has no unsigned byte
            case INT8 -> from.get(place);
            case INT16 -> from.getShort(2 * place);
            case INT32 -> from.getInt(4 * place);
            case INT64 -> from.getLong(8 * place);
            case FLOAT16, FLOAT32 -> (float) floating(from, place);
            case FLOAT64 -> floating(from, place);
            case STRING -> throw new IllegalStateException("strings do not lie in a buffer");
        };
    }
}
