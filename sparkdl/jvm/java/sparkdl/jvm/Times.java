package sparkdl.jvm;

import java.sql.Date;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.temporal.ChronoUnit;
import java.time.Instant;

/** Days and moments as numbers. */
final class Times {
    private Times() {}

    /** Days since 1970 of a date, microseconds of a moment without a zone: as Arrow holds them. */
    static long number(Object value, String column) {
        if (value instanceof Date date) return date.toLocalDate().toEpochDay();
        if (value instanceof LocalDate date) return date.toEpochDay();
        if (value instanceof LocalDateTime moment) {
            return ChronoUnit.MICROS.between(Instant.EPOCH, moment.toInstant(ZoneOffset.UTC));
        }
        throw Problem.of("value", column, "a number", value.getClass().getSimpleName());
    }

    /** Milliseconds since 1970 of what Spark gives for a timestamp. */
    static long millis(Object timestamp) {
        return timestamp instanceof Instant instant ? instant.toEpochMilli() : ((java.util.Date) timestamp).getTime();
    }
}
