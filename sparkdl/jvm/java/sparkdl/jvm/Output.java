package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** One of a model's outputs as a value of Spark. Numbers of a fixed size are written into memory that is kept. */
final class Output implements AutoCloseable {
    final Tensor told;
    final OnnxTensor pinned; // null: the runtime makes a tensor for each row
    private final ByteBuffer memory;

    Output(Tensor told) throws OrtException {
        this.told = told;
        if (told.dtype() == Dtype.STRING || !told.isFixed()) {
            memory = null;
            pinned = null;
        } else {
            int bytes = Math.multiplyExact(told.size(), told.dtype().bytes);
            memory = ByteBuffer.allocateDirect(Math.max(1, bytes)).order(ByteOrder.nativeOrder());
            ByteBuffer part = memory.duplicate().order(ByteOrder.nativeOrder());
            part.limit(bytes);
            pinned = OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), part, told.batch(0), told.dtype().onnx);
        }
    }

    /** A scalar, or arrays as deep as the shape. Throws Problem for a number that is not finite. */
    Object value(OnnxTensor made) throws OrtException {
        if (told.dtype() == Dtype.STRING) return nested((String[]) made.getValue(), made.getInfo().getShape(), 1, new int[1]);
        ByteBuffer from = made == pinned ? memory : made.getByteBuffer().order(ByteOrder.nativeOrder());
        long[] shape = made == pinned ? told.batch(0) : made.getInfo().getShape();
        if (told.dtype().isFloat()) checkFinite(from, shape);
        return nested(from, shape, 1, new int[1]);
    }

    private void checkFinite(ByteBuffer from, long[] shape) {
        int elements = 1;
        for (long size : shape) elements *= Math.toIntExact(size);
        for (int i = 0; i < elements; i++) {
            double value = told.dtype().floating(from, i);
            if (!Double.isFinite(value)) throw Problem.nonFinite(told.name(), value);
        }
    }

    private Object nested(Object from, long[] shape, int axis, int[] place) {
        if (axis == shape.length) {
            int at = place[0]++;
            return from instanceof String[] texts ? texts[at] : told.dtype().value((ByteBuffer) from, at);
        }
        Object[] values = new Object[Math.toIntExact(shape[axis])];
        for (int i = 0; i < values.length; i++) values[i] = nested(from, shape, axis + 1, place);
        return values;
    }

    @Override
    public void close() {
        if (pinned != null) pinned.close();
    }
}
