package sparkdl.jvm;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;
import java.lang.ref.Cleaner;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.spark.sql.Row;

/**
 * A session of ONNX Runtime and what it takes and gives. Any number of threads score with it at a time, each between
 * {@code take} and {@code close}; its memory is given back when the last one, and who loaded it, have closed it.
 */
final class Model implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();

    final Graph graph;
    final String version;
    private final OrtSession session;
    private final ConcurrentLinkedDeque<Workspace> idle = new ConcurrentLinkedDeque<>();
    private final AtomicInteger users = new AtomicInteger(1);
    private final Cleaner.Cleanable memory;

    private Model(Graph graph, String version, OrtSession session) {
        this.graph = graph;
        this.version = version;
        this.session = session;
        memory = CLEANER.register(this, new Native(session, idle)); // should somebody forget to close it
    }

    /**
     * Load a model whose bytes are those that the graph tells of.
     *
     * @param threads that one forward pass may take
     * @param tries made-up rows to run, so that the first real one meets a warm model
     * @throws IllegalArgumentException telling why the model is refused
     */
    static Model load(byte[] content, Graph graph, String version, int threads, int tries) {
        SelfContained.check(graph.checked(content));
        try {
            Model model = new Model(graph, version, session(content, threads));
            try {
                model.tryOut(tries);
            } catch (OrtException | RuntimeException | Error error) {
                model.close();
                throw error;
            }
            return model;
        } catch (OrtException error) {
            throw new IllegalArgumentException("the ONNX model is refused: " + Text.firstLine(error), error);
        }
    }

    private static OrtSession session(byte[] content, int threads) throws OrtException {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(threads);
            options.setInterOpNumThreads(1);
            options.setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL);
            options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
            options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR);
            options.addConfigEntry("session.load_model_format", "ONNX"); // never ORT's own format, which is not checked here
            options.addConfigEntry("session.intra_op.allow_spinning", "0"); // the cores are Spark's
            return OrtEnvironment.getEnvironment().createSession(content, options);
        }
    }

    private void tryOut(int times) throws OrtException {
        Workspace workspace = new Workspace(graph);
        idle.push(workspace);
        for (int i = 0; i < times; i++) workspace.tryOut(session);
    }

    /** Keep it from being closed; false where it was. */
    boolean take() {
        return users.getAndUpdate(count -> count == 0 ? 0 : count + 1) > 0;
    }

    @Override
    public void close() {
        if (users.decrementAndGet() == 0) memory.clean();
    }

    /** The answers of a row, into the first fields. Throws Problem for a row that is bad. */
    void score(Row row, int[][] places, Object[] answers) {
        Workspace workspace = idle.poll();
        try {
            if (workspace == null) workspace = new Workspace(graph);
            workspace.score(session, row, places, answers);
        } catch (OrtException error) {
            throw Problem.failed(error);
        } finally {
            if (workspace != null) idle.push(workspace);
        }
    }

    private record Native(OrtSession session, ConcurrentLinkedDeque<Workspace> idle) implements Runnable {
        @Override
        public void run() {
            idle.forEach(Workspace::close);
            try {
                session.close();
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        }
    }
}
