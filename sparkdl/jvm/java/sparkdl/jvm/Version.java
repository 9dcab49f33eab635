package sparkdl.jvm;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;

/** Of the sparkdl that this jar belongs to. */
public final class Version {
    private Version() {}

    public static String here() {
        try (InputStream file = Version.class.getResourceAsStream("version")) {
            if (file == null) throw new IllegalStateException("sparkdl-jvm.jar has no file 'version'");
            return new String(file.readAllBytes(), StandardCharsets.UTF_8).trim();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Throws IllegalStateException when Python's sparkdl is another. */
    static void check(String python) {
        if (!here().equals(python)) {
            throw new IllegalStateException("sparkdl-jvm.jar on this executor is of sparkdl " + here()
                    + ", and the driver's Python has " + python + ": take the older jar from the executors' class path");
        }
    }
}
