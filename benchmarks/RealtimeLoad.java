import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends records at an even rate and notes when their answers arrive; one process, so that both clocks are one.
 *
 * <p>Started as {@code java -cp 'jars/*' RealtimeLoad.java SERVERS ROWS}, ROWS a file of JSON objects, one a line, which
 * are sent in turn with {@code "id": NUMBER} put first. It reads commands, a line each, and answers each by a line:
 *
 * <ul>
 *   <li>{@code open FILE TOPIC…}: from now on note what arrives in these topics in FILE; it says {@code open}.
 *   <li>{@code send TOPIC RATE COUNT}: so many records, RATE a second; {@code sent FIRST} once all are acknowledged.
 *       FIRST is the first one's number, the others follow.
 *   <li>{@code close}: note no more; {@code closed}.
 * </ul>
 *
 * FILE has 32 bytes an arrival, little-endian: number (int64); when it was to be sent, and when it arrived (int64,
 * nanoseconds of one monotonic clock); place of its topic in the command (int32); header {@code sparkdl-model-version}
 * (int32, 0 without one). The latency counts from when a record was to be sent: a sender that is late hides nothing.
 */
public final class RealtimeLoad {
    private static final int REMEMBERED = 1 << 22; // sending times, by number
    private static final byte[] ID = "\"id\":".getBytes(StandardCharsets.UTF_8);

    private final KafkaProducer<byte[], byte[]> producer;
    private final String servers;
    private final List<String> rows;
    private final long[] due = new long[REMEMBERED];
    private long next = 0;
    private volatile boolean open;
    private Thread consuming;

    private RealtimeLoad(String servers, List<String> rows) {
        this.servers = servers;
        this.rows = rows;
        producer = new KafkaProducer<>(
                Map.of("bootstrap.servers", servers, "linger.ms", "0", "buffer.memory", 256L << 20),
                new ByteArraySerializer(), new ByteArraySerializer());
    }

    public static void main(String[] given) throws Exception {
        RealtimeLoad load = new RealtimeLoad(given[0], Files.readAllLines(Path.of(given[1])));
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.split(" ");
            System.out.println(switch (words[0]) {
                case "open" -> load.open(Path.of(words[1]), Arrays.asList(words).subList(2, words.length));
                case "send" -> load.send(words[1], Double.parseDouble(words[2]), Integer.parseInt(words[3]));
                case "close" -> load.close();
                default -> throw new IllegalArgumentException("no command: " + line);
            });
            System.out.flush();
        }
    }

    private String send(String topic, double rate, int count) throws InterruptedException {
        long first = next;
        long start = System.nanoTime();
        AtomicReference<Exception> failed = new AtomicReference<>();
        for (int i = 0; i < count; i++, next++) {
            long at = start + (long) (i * 1e9 / rate);
            for (long left = at - System.nanoTime(); left > 0; left = at - System.nanoTime()) LockSupport.parkNanos(left);
            due[(int) (next % REMEMBERED)] = at;
            String text = "{\"id\":" + next + "," + rows.get((int) (next % rows.size())).substring(1);
            producer.send(new ProducerRecord<>(topic, text.getBytes(StandardCharsets.UTF_8)), (metadata, error) -> {
                if (error != null) failed.compareAndSet(null, error);
            });
        }
        producer.flush();
        if (failed.get() != null) throw new IllegalStateException("a record was not sent", failed.get());
        return "sent " + first;
    }

    private String open(Path file, List<String> topics) throws Exception {
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
                Map.of("bootstrap.servers", servers, "enable.auto.commit", "false"),
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> parts = new ArrayList<>();
        for (String topic : topics) {
            consumer.partitionsFor(topic).forEach(one -> parts.add(new TopicPartition(topic, one.partition())));
        }
        consumer.assign(parts);
        consumer.seekToEnd(parts);
        parts.forEach(consumer::position);
        open = true;
        consuming = new Thread(() -> consume(consumer, file, topics), "consumer");
        consuming.setDaemon(true); // it ends with the commands
        consuming.start();
        return "open";
    }

    private void consume(KafkaConsumer<byte[], byte[]> consumer, Path file, List<String> topics) {
        try (consumer;
                FileChannel to = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
            ByteBuffer noted = ByteBuffer.allocate(32 * 1000).order(ByteOrder.LITTLE_ENDIAN); // polls give 500 at most
            while (open) {
                var records = consumer.poll(Duration.ofMillis(100));
                long now = System.nanoTime();
                for (ConsumerRecord<byte[], byte[]> one : records) {
                    long number = number(one.value());
                    noted.putLong(number).putLong(due[(int) (number % REMEMBERED)]).putLong(now);
                    noted.putInt(topics.indexOf(one.topic())).putInt(version(one));
                }
                noted.flip();
                while (noted.hasRemaining()) to.write(noted);
                noted.clear();
            }
        } catch (IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    private static int version(ConsumerRecord<byte[], byte[]> record) {
        Header told = record.headers().lastHeader("sparkdl-model-version");
        if (told == null || told.value() == null) return 0;
        String text = new String(told.value(), StandardCharsets.UTF_8);
        return text.matches("\\d{1,9}") ? Integer.parseInt(text) : 0;
    }

    /** The number behind the first {@code "id":}. */
    private static long number(byte[] value) {
        int place = 0;
        while (!Arrays.equals(value, place, place + ID.length, ID, 0, ID.length)) place++;
        place += ID.length;
        long number = 0;
        for (; place < value.length && value[place] >= '0' && value[place] <= '9'; place++) {
            number = 10 * number + value[place] - '0';
        }
        return number;
    }

    private String close() throws InterruptedException {
        open = false;
        consuming.join();
        return "closed";
    }
}
