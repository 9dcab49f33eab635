package sparkdl.jvm;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;
import org.apache.spark.sql.Row;

/** Makes one of a model's tensors out of a row, in memory of its own. */
interface Input extends AutoCloseable {
    /** The tensor of the row whose columns for it are at these places. It is valid until the next row is read. */
    OnnxTensor read(Row row, int[] places) throws OrtException;

    /** The tensor of a made-up row: zeros, or empty texts; of length 1 where it varies. */
    OnnxTensor madeUp() throws OrtException;

    @Override
    void close();

    static Input of(Tensor told) throws OrtException {
        if (told.buckets() != null) return new Hashes(told);
        if (told.dtype() == Dtype.STRING) return new Strings(told);
        return new Numbers(told);
    }
}
