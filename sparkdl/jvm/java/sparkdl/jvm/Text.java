package sparkdl.jvm;

import java.math.BigDecimal;
import java.math.MathContext;

/** Values as Python would write them. */
final class Text {
    private static final int MOST_CHARACTERS = 500; // of an error, as in sparkdl/score/failing.py

    private Text() {}

    static String quoted(String text) {
        return text.indexOf('\'') < 0 ? "'" + text + "'" : "\"" + text + "\"";
    }

    static String number(double value) {
        if (Double.isNaN(value)) return "nan";
        if (Double.isInfinite(value)) return value > 0 ? "inf" : "-inf";
        BigDecimal shortest = shortest(value);
        int exponent = shortest.precision() - shortest.scale() - 1;
        if (value == 0 || (exponent >= -4 && exponent < 16)) {
            String plain = shortest.toPlainString();
            return (value == 0 && 1 / value < 0 ? "-" : "") + (plain.indexOf('.') < 0 ? plain + ".0" : plain);
        }
        String digits = shortest.unscaledValue().toString().replaceAll("(?<=[1-9])0+$", "").replaceAll("^(-?\\d)(\\d+)$", "$1.$2");
        return digits + "e" + (exponent < 0 ? "-" : "+") + (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
    }

    /** The fewest digits that tell this number from all others: Double.toString gives more before Java 19 (JDK-4511638). */
    private static BigDecimal shortest(double value) {
        BigDecimal exact = new BigDecimal(value);
        for (int digits = 1; ; digits++) {
            BigDecimal rounded = exact.round(new MathContext(digits));
            if (rounded.doubleValue() == value) return rounded;
        }
    }

    static String firstLine(Exception error) {
        String line = (error.getClass().getSimpleName() + ": " + error.getMessage()).lines().findFirst().orElse("");
        return line.substring(0, Math.min(line.length(), MOST_CHARACTERS));
    }
}
