package sparkdl.jvm;

/** What is wrong with a row. The words are those of sparkdl/columns.py. */
final class Problem extends RuntimeException {
    private final String kind;

    private Problem(String kind, String message) {
        super(message, null, false, false); // a bad row is no fault of the code: no stack trace is filled in
        this.kind = kind;
    }

    static Problem of(String kind, String column, String expected, Object got) {
        return new Problem(kind, "column " + Text.quoted(column) + ": expected " + expected + ", got " + got);
    }

    static Problem nonFinite(String output, double got) {
        return new Problem("non-finite", "output " + Text.quoted(output) + ": the model returned " + Text.number(got));
    }

    static Problem failed(Exception error) {
        return new Problem("failed", "the model raised " + Text.firstLine(error));
    }

    /** As it ends a job. */
    Problem ending() {
        return kind.equals("non-finite") && getMessage().startsWith("output")
                ? new Problem(kind, getMessage() + "; say handleInvalid='keep' or 'skip' to go on without such rows")
                : this;
    }

    /** As the column of problems holds it. */
    String reason() {
        return kind + ": " + getMessage();
    }
}
