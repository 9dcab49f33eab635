package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import org.apache.spark.sql.Row;

/**
 * The number of a cell's bucket, as sparkdl/preprocess/hashed.py makes it: SipHash-2-4 (J.-P. Aumasson and D. J. Bernstein,
 * 2012) of its text, mixed as SplitMix64 mixes its state (G. L. Steele, D. Lea and C. H. Flood, 2014).
 */
final class Hashes implements Input {
    private final long buckets;
    private final long key0;
    private final long key1;
    private final ByteBuffer memory = ByteBuffer.allocateDirect(8).order(ByteOrder.nativeOrder());
    private final OnnxTensor tensor;

    Hashes(Tensor told) throws OrtException {
        if (told.dtype() != Dtype.INT64 || told.shape().length != 0 || told.columns().size() != 1) {
            throw new IllegalArgumentException("a hash is int64[] of one column (got " + told.kind() + ")");
        }
        buckets = told.buckets().count();
        if (buckets < 2) throw new IllegalArgumentException("hashes need 2 buckets or more (got " + buckets + ")");
        byte[] digits = String.format(Locale.ROOT, "%016d", told.buckets().seed()).getBytes(StandardCharsets.US_ASCII);
        ByteBuffer key = ByteBuffer.wrap(digits).order(ByteOrder.LITTLE_ENDIAN);
        key0 = key.getLong();
        key1 = key.getLong();
        tensor = OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), memory.duplicate().order(ByteOrder.nativeOrder()),
                told.batch(0), told.dtype().onnx);
    }

    @Override
    public OnnxTensor read(Row row, int[] places) {
        String text = Strings.text(row.get(places[0]));
        memory.putLong(0, text == null ? 0 : 1 + Long.remainderUnsigned(hash(text), buckets - 1));
        return tensor;
    }

    @Override
    public OnnxTensor madeUp() {
        memory.putLong(0, 0);
        return tensor;
    }

    @Override
    public void close() {
        tensor.close();
    }

    private long hash(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        ByteBuffer words = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        long[] v = {
            key0 ^ 0x736f6d6570736575L, key1 ^ 0x646f72616e646f6dL, key0 ^ 0x6c7967656e657261L, key1 ^ 0x7465646279746573L
        };
        while (words.remaining() >= 8) take(v, words.getLong());
        long last = (long) bytes.length << 56;
        for (int shift = 0; words.hasRemaining(); shift += 8) last |= (words.get() & 0xffL) << shift;
        take(v, last);
        v[2] ^= 0xff;
        for (int i = 0; i < 4; i++) round(v);
        return mixed(v[0] ^ v[1] ^ v[2] ^ v[3]);
    }

    private static void take(long[] v, long word) {
        v[3] ^= word;
        round(v);
        round(v);
        v[0] ^= word;
    }

    private static void round(long[] v) {
        v[0] += v[1];
        v[1] = Long.rotateLeft(v[1], 13) ^ v[0];
        v[0] = Long.rotateLeft(v[0], 32);
        v[2] += v[3];
        v[3] = Long.rotateLeft(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = Long.rotateLeft(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = Long.rotateLeft(v[1], 17) ^ v[2];
        v[2] = Long.rotateLeft(v[2], 32);
    }

    private static long mixed(long hash) {
        hash = (hash ^ (hash >>> 30)) * 0xbf58476d1ce4e5b9L;
        hash = (hash ^ (hash >>> 27)) * 0x94d049bb133111ebL;
        return hash ^ (hash >>> 31);
    }
}
