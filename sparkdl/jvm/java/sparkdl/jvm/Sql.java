package sparkdl.jvm;

import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;
import org.apache.spark.sql.api.java.UDF10;
import org.apache.spark.sql.api.java.UDF2;
import org.apache.spark.sql.api.java.UDF3;
import org.apache.spark.sql.api.java.UDF4;
import org.apache.spark.sql.api.java.UDF5;
import org.apache.spark.sql.api.java.UDF6;
import org.apache.spark.sql.api.java.UDF7;
import org.apache.spark.sql.api.java.UDF8;
import org.apache.spark.sql.api.java.UDF9;
import org.apache.spark.sql.expressions.UserDefinedFunction;
import org.apache.spark.sql.functions;
import org.apache.spark.sql.types.DataType;

/** A scorer as a function of columns, not of a struct of them: as SQL calls it. */
public final class Sql {
    /** Columns that Spark's functions of Java take, at most. */
    public static final int MOST = 10;

    private Sql() {}

    private static Row row(Object... cells) {
        return RowFactory.create(cells);
    }

    /** Of so many columns, 1 to MOST. */
    public static UserDefinedFunction function(Scorer of, String type, int columns) {
        DataType to = DataType.fromDDL(type);
        UserDefinedFunction made = switch (columns) {
            case 1 -> functions.udf((UDF1<?, ?>) a -> of.call(row(a)), to);
            case 2 -> functions.udf((UDF2<?, ?, ?>) (a, b) -> of.call(row(a, b)), to);
            case 3 -> functions.udf((UDF3<?, ?, ?, ?>) (a, b, c) -> of.call(row(a, b, c)), to);
            case 4 -> functions.udf((UDF4<?, ?, ?, ?, ?>) (a, b, c, d) -> of.call(row(a, b, c, d)), to);
            case 5 -> functions.udf((UDF5<?, ?, ?, ?, ?, ?>) (a, b, c, d, e) -> of.call(row(a, b, c, d, e)), to);
            case 6 -> functions.udf(
                    (UDF6<?, ?, ?, ?, ?, ?, ?>) (a, b, c, d, e, f) -> of.call(row(a, b, c, d, e, f)), to);
            case 7 -> functions.udf(
                    (UDF7<?, ?, ?, ?, ?, ?, ?, ?>) (a, b, c, d, e, f, g) -> of.call(row(a, b, c, d, e, f, g)), to);
            case 8 -> functions.udf(
                    (UDF8<?, ?, ?, ?, ?, ?, ?, ?, ?>) (a, b, c, d, e, f, g, h) -> of.call(row(a, b, c, d, e, f, g, h)), to);
            case 9 -> functions.udf(
                    (UDF9<?, ?, ?, ?, ?, ?, ?, ?, ?, ?>)
                            (a, b, c, d, e, f, g, h, i) -> of.call(row(a, b, c, d, e, f, g, h, i)),
                    to);
            default -> functions.udf(
                    (UDF10<?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?>)
                            (a, b, c, d, e, f, g, h, i, j) -> of.call(row(a, b, c, d, e, f, g, h, i, j)),
                    to);
        };
        return made.asNondeterministic();
    }
}
