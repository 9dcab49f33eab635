package sparkdl.jvm;

import java.math.BigDecimal;

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
        return written(Double.toString(value), Math.abs(value));
    }

    static String number(float value) {
        return Float.isFinite(value) ? written(Float.toString(value), Math.abs(value)) : number((double) value);
    }

    static String firstLine(Exception error) {
        String line = (error.getClass().getSimpleName() + ": " + error.getMessage()).lines().findFirst().orElse("");
        return line.substring(0, Math.min(line.length(), MOST_CHARACTERS));
    }

    private static String written(String java, double size) {
        int exponent = java.indexOf('E');
        if (exponent < 0) return java;
        if (size >= 1e-4 && size < 1e16) {
            String plain = new BigDecimal(java).toPlainString();
            return plain.indexOf('.') < 0 ? plain + ".0" : plain;
        }
        String digits = java.substring(0, exponent).replaceAll("\\.0$", "");
        int power = Integer.parseInt(java.substring(exponent + 1));
        return digits + "e" + (power < 0 ? "-" : "+") + (Math.abs(power) < 10 ? "0" : "") + Math.abs(power);
    }
}
