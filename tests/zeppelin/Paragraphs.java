import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.spark.SparkContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.zeppelin.display.AngularObjectRegistry;
import org.apache.zeppelin.display.GUI;
import org.apache.zeppelin.interpreter.Interpreter;
import org.apache.zeppelin.interpreter.InterpreterContext;
import org.apache.zeppelin.interpreter.InterpreterException;
import org.apache.zeppelin.interpreter.InterpreterGroup;
import org.apache.zeppelin.interpreter.InterpreterHookRegistry;
import org.apache.zeppelin.interpreter.InterpreterOutput;
import org.apache.zeppelin.interpreter.InterpreterOutputListener;
import org.apache.zeppelin.interpreter.InterpreterResult;
import org.apache.zeppelin.interpreter.InterpreterResultMessage;
import org.apache.zeppelin.interpreter.InterpreterResultMessageOutput;
import org.apache.zeppelin.interpreter.LazyOpenInterpreter;
import org.apache.zeppelin.interpreter.ZeppelinContext;
import org.apache.zeppelin.interpreter.remote.PooledRemoteClient;
import org.apache.zeppelin.interpreter.remote.RemoteInterpreterEventClient;
import org.apache.zeppelin.interpreter.remote.RemoteInterpreterServer;
import org.apache.zeppelin.interpreter.thrift.RemoteInterpreterEventService;
import org.apache.zeppelin.python.PythonZeppelinContext;
import org.apache.zeppelin.resource.LocalResourcePool;
import org.apache.zeppelin.scheduler.Job;
import org.apache.zeppelin.scheduler.JobListener;
import org.apache.zeppelin.spark.IPySparkInterpreter;
import org.apache.zeppelin.spark.PySparkInterpreter;
import org.apache.zeppelin.spark.SparkInterpreter;
import org.apache.zeppelin.spark.SparkShims;
import org.apache.zeppelin.spark.SparkSqlInterpreter;
import org.apache.zeppelin.spark.SparkVersion;
import org.apache.zeppelin.user.AuthenticationInfo;

/**
 * Runs paragraphs in Zeppelin's own interpreters, as Zeppelin's interpreter process does, driven by lines of JSON.
 *
 * <p>In: {"run": id, "interpreter": "pyspark", "ipyspark" or "sql", "text": …} and {"cancel": id}. Out: {"ready": true}; while a paragraph
 * runs {"id", "event": "append" or "update" or "clear", "text"} and {"id", "event": "progress", "percent"}; at its end {"id",
 * "event": "done", "code", "messages": [{"type", "data"}]}. Started by spark-submit, whose arguments are the session's.
 *
 * <p>PySparkInterpreter, IPySparkInterpreter and SparkSqlInterpreter are Zeppelin's. Of SparkInterpreter, whose Scala shell Maven Central does not
 * have, there is the session alone.
 */
public class Paragraphs {
  static final ObjectMapper JSON = new ObjectMapper();
  static final String NOTE = "note", SESSION = "session";
  static PrintStream answers;
  static final Map<String, Runnable> running = new ConcurrentHashMap<>();

  public static void main(String[] arguments) throws Exception {
    answers = new PrintStream(System.out, true, "UTF-8");
    System.setOut(System.err);
    InterpreterGroup group = new InterpreterGroup("sparkdl");
    group.setInterpreterHookRegistry(new InterpreterHookRegistry());
    group.setAngularObjectRegistry(new AngularObjectRegistry(group.getId(), null));
    group.setResourcePool(new LocalResourcePool(group.getId()));
    Properties properties = new Properties();
    properties.setProperty("zeppelin.pyspark.useIPython", "false");
    properties.setProperty("zeppelin.spark.maxResult", "1000");
    properties.setProperty("spark.pyspark.python", System.getenv("PYSPARK_PYTHON"));
    Map<String, Interpreter> interpreters = new HashMap<>();
    interpreters.put("spark", new Session(properties));
    interpreters.put("pyspark", new PySpark(properties));
    interpreters.put("ipyspark", new IPySpark(properties));
    interpreters.put("sql", new SparkSqlInterpreter(properties));
    for (Map.Entry<String, Interpreter> entry : interpreters.entrySet()) {
      entry.setValue(new LazyOpenInterpreter(entry.getValue()));
      entry.getValue().setInterpreterGroup(group);
      group.addInterpreterToSession(entry.getValue(), SESSION);
    }
    answer(Map.of("ready", true));
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = lines.readLine()) != null; ) {
      JsonNode asked = JSON.readTree(line);
      if (asked.has("cancel")) {
        Runnable cancel = running.get(asked.get("cancel").asText());
        if (cancel != null) {
          new Thread(cancel).start();
        }
      } else {
        run(group, interpreters.get(asked.get("interpreter").asText()), asked.get("run").asText(), asked.get("text").asText());
      }
    }
    interpreters.get("ipyspark").close();
    interpreters.get("pyspark").close();
    System.exit(0);
  }

  static void run(InterpreterGroup group, Interpreter interpreter, String id, String text) {
    InterpreterContext context =
        InterpreterContext.builder()
            .setNoteId(NOTE)
            .setNoteName(NOTE)
            .setParagraphId(id)
            .setParagraphText(text)
            .setInterpreterClassName(interpreter.getClassName())
            .setAuthenticationInfo(AuthenticationInfo.ANONYMOUS)
            .setGUI(new GUI())
            .setNoteGUI(new GUI())
            .setConfig(new HashMap<>())
            .setLocalProperties(new HashMap<>())
            .setAngularObjectRegistry(group.getAngularObjectRegistry())
            .setResourcePool(group.getResourcePool())
            .setIntpEventClient(new Nobody())
            .setProgressMap(new Progress())
            .setInterpreterOut(new InterpreterOutput(new Output(id)))
            .build();
    Job<InterpreterResult> job =
        new RemoteInterpreterServer.InterpretJob(id, id, new Listener(), interpreter, text, context);
    running.put(id, () -> cancel(interpreter, context));
    interpreter.getScheduler().submit(job);
  }

  /** As Zeppelin's interpreter process does for a paragraph that runs. */
  static void cancel(Interpreter interpreter, InterpreterContext context) {
    try {
      interpreter.cancel(context);
    } catch (InterpreterException error) {
      throw new IllegalStateException(error);
    }
  }

  static synchronized void answer(Map<String, ?> message) {
    try {
      answers.println(JSON.writeValueAsString(message));
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }

  static void tell(String id, String event, String name, Object value) {
    answer(Map.of("id", id, "event", event, name, value));
  }

  /** Tells of the end of a paragraph. */
  static class Listener implements JobListener<Job<InterpreterResult>> {
    @Override
    public void onProgressUpdate(Job<InterpreterResult> job, int progress) {}

    @Override
    public void onStatusChange(Job<InterpreterResult> job, Job.Status before, Job.Status after) {
      if (!after.isCompleted()) {
        return;
      }
      running.remove(job.getId());
      InterpreterResult result = job.getReturn();
      List<Map<String, String>> messages = new ArrayList<>();
      if (result != null) {
        for (InterpreterResultMessage message : result.message()) {
          messages.add(Map.of("type", message.getType().toString(), "data", message.getData()));
        }
      }
      String code = result == null ? "ABORT" : result.code().toString();
      answer(Map.of("id", job.getId(), "event", "done", "status", after.toString(), "code", code, "messages", messages));
    }
  }

  /** Tells of each change of a paragraph's output. */
  static class Output implements InterpreterOutputListener {
    private final String id;

    Output(String id) {
      this.id = id;
    }

    @Override
    public void onUpdateAll(InterpreterOutput output) {
      tell(id, "clear", "text", "");
    }

    @Override
    public void onAppend(int index, InterpreterResultMessageOutput output, byte[] line) {
      tell(id, "append", "text", new String(line, StandardCharsets.UTF_8));
    }

    @Override
    public void onUpdate(int index, InterpreterResultMessageOutput output) {
      tell(id, "update", "text", output.getType().toString());
    }
  }

  /** Tells of the progress that a paragraph sets. */
  static class Progress extends ConcurrentHashMap<String, Integer> {
    @Override
    public Integer put(String id, Integer percent) {
      tell(id, "progress", "percent", percent);
      return super.put(id, percent);
    }
  }

  /** In place of Zeppelin's server, which these events go to. */
  static class Nobody extends RemoteInterpreterEventClient {
    Nobody() {
      super("127.0.0.1", 0, 1);
    }

    @Override
    public <R> R callRemoteFunction(
        PooledRemoteClient.RemoteFunction<R, RemoteInterpreterEventService.Client> function) {
      return null;
    }
  }

  /** %spark.pyspark on a PySpark that has no SparkSession._wrapped any more. */
  public static class PySpark extends PySparkInterpreter {
    public PySpark(Properties properties) {
      super(properties);
    }

    @Override
    public String getClassName() {
      return PySparkInterpreter.class.getName();
    }

    @Override
    protected void bootstrapInterpreter(String resource) throws IOException {
      String wrapped =
          "from pyspark.sql import SparkSession, SQLContext\n"
              + "SparkSession._wrapped = property(lambda session: SQLContext(session._sc, session))\n"
              + "del SparkSession, SQLContext";
      callPython(new PythonInterpretRequest(wrapped, false, false));
      super.bootstrapInterpreter(resource);
    }
  }

  /** %spark.ipyspark, whose way of finding its packages (`pip freeze`) knows old names only. */
  public static class IPySpark extends IPySparkInterpreter {
    public IPySpark(Properties properties) {
      super(properties);
    }

    @Override
    public String getClassName() {
      return IPySparkInterpreter.class.getName();
    }

    @Override
    public String checkKernelPrerequisite(String python) {
      return "";
    }

    @Override
    protected Map<String, String> setupKernelEnv() throws IOException {
      Map<String, String> environment = super.setupKernelEnv();
      environment.put("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python"); // its messages were made for protobuf 3
      return environment;
    }
  }

  /** What %spark.pyspark and %spark.sql ask of %spark: the session, and how Zeppelin shows a Dataset. */
  public static class Session extends SparkInterpreter {
    private SparkSession spark;
    private ZeppelinContext context;

    public Session(Properties properties) {
      super(properties);
    }

    @Override
    public String getClassName() {
      return SparkInterpreter.class.getName();
    }

    @Override
    public void open() throws InterpreterException {
      spark = SparkSession.builder().getOrCreate();
      InterpreterHookRegistry hooks = getInterpreterGroup().getInterpreterHookRegistry();
      try {
        context =
            getSparkVersion().getMajorVersion() == 3
                ? new Shimmed(hooks, SparkShims.getInstance(spark.version(), getProperties(), spark))
                : new Shown(hooks);
      } catch (Exception error) {
        throw new InterpreterException(error);
      }
    }

    @Override
    public void close() {
      spark.stop();
    }

    @Override
    public void cancel(InterpreterContext paragraph) {
      getSparkContext().cancelJobGroup(group(paragraph));
    }

    /** As Zeppelin builds it. */
    private static String group(InterpreterContext paragraph) {
      return "zeppelin|" + paragraph.getAuthenticationInfo().getUser() + "|" + NOTE + "|" + paragraph.getParagraphId();
    }

    @Override
    public int getProgress(InterpreterContext paragraph) {
      return 0;
    }

    @Override
    public SparkContext getSparkContext() {
      return spark.sparkContext();
    }

    @Override
    public JavaSparkContext getJavaSparkContext() {
      return JavaSparkContext.fromSparkContext(spark.sparkContext());
    }

    @Override
    public Object getSparkSession() {
      return spark;
    }

    @Override
    public Object getSQLContext() {
      return spark.sqlContext();
    }

    @Override
    public SparkVersion getSparkVersion() {
      return SparkVersion.fromVersionString(spark.version());
    }

    @Override
    public boolean isUnsupportedSparkVersion() {
      return false;
    }

    /** True of Spark 4 too: else %spark.sql would ask for the Scala shell's class loader. */
    @Override
    public boolean isScala212() {
      return true;
    }

    @Override
    public ZeppelinContext getZeppelinContext() {
      return context;
    }
  }

  /** Shows a Dataset by Zeppelin's shims of Spark 3. */
  static class Shimmed extends PythonZeppelinContext {
    private final SparkShims shims;

    Shimmed(InterpreterHookRegistry hooks, SparkShims shims) {
      super(hooks, 1000);
      this.shims = shims;
    }

    @Override
    public String showData(Object data, int maxResult) {
      return shims.showDataFrame(data, maxResult, getInterpreterContext());
    }
  }

  /** Shows a Dataset of Spark 4, which Zeppelin's shims refuse, in the same form. */
  static class Shown extends PythonZeppelinContext {
    Shown(InterpreterHookRegistry hooks) {
      super(hooks, 1000);
    }

    @Override
    @SuppressWarnings("unchecked")
    public String showData(Object data, int maxResult) {
      Dataset<Row> rows = (Dataset<Row>) data;
      StringBuilder table = new StringBuilder("%table ").append(String.join("\t", rows.columns())).append("\n");
      for (Row row : rows.takeAsList(maxResult)) {
        table.append(row.mkString("\t")).append("\n");
      }
      return table.toString();
    }
  }
}
