//! Files of older schemas keep what they have when they are migrated.

use super::migrations::MIGRATIONS;
use super::retention::remove_orphaned_texts;
use super::spans::{outlines, outlines_sql};
use crate::store::span_row::COLUMNS;
use crate::store::sql::with_final_states;
use rusqlite::Connection;

/// A database with the first `version` migrations.
fn database(version: usize) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    migrate_from(&connection, 0, version);
    connection
}

fn migrate_from(connection: &Connection, from: usize, to: usize) {
    for script in &MIGRATIONS[from..to] {
        connection.execute_batch(&with_final_states(script)).unwrap();
    }
}

#[test]
fn the_table_of_spans_has_the_columns_of_their_rows() {
    let connection = database(MIGRATIONS.len());
    let sql = "SELECT name FROM pragma_table_info('span') WHERE name <> 'id' ORDER BY cid";
    let mut statement = connection.prepare(sql).unwrap();
    let names: rusqlite::Result<Vec<String>> = statement.query_map([], |row| row.get(0)).unwrap().collect();
    assert_eq!(names.unwrap(), COLUMNS.map(|column| column.name));
}

#[test]
fn traces_of_an_older_file_last_as_long_as_their_attempts() {
    let connection = database(5);
    let rows = "
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, json) VALUES
            (1, 'r', 'a', 1, 's', 0, '{}'), (2, 'r', 'a', 2, 't', 0, '{}'), (3, 'r', 'b', 1, 's', 0, '{}');
        INSERT INTO trace VALUES ('one', 'r', 'a'), ('two', 'r', 'a'), ('three', 'r', 'b'), ('gone', 'r', 'c');";
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 5, 6);
    let sql = "SELECT group_concat(trace_id || last_span, ' ') FROM (SELECT * FROM trace ORDER BY trace_id)";
    let traces: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(traces, "one2 three3 two2");
}

#[test]
fn a_file_of_the_first_schema_keeps_its_texts() {
    let connection = database(1);
    let rows = "
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, json) VALUES
            (1, 'r', 'a', 1, 's', 0, '{}'), (2, 'r', 'a', 2, 't', 0, '{}');
        INSERT INTO blob (hash, data) VALUES (x'01', 'one'), (x'02', 'two');
        INSERT INTO span_blob VALUES (1, 'x', x'01'), (2, 'x', x'01'), (2, 'y', x'02');";
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 1, MIGRATIONS.len());
    let texts = |span: i64| -> String {
        let sql = "SELECT group_concat(attribute || data, ' ') FROM span_text JOIN text ON id = text WHERE span = ?1";
        connection.query_row(sql, [span], |row| row.get(0)).unwrap()
    };
    assert_eq!((texts(1), texts(2)), ("xone".to_owned(), "xone ytwo".to_owned()));
    connection.execute_batch("DELETE FROM span WHERE id = 2").unwrap();
    remove_orphaned_texts(&connection).unwrap();
    let left: i64 = connection.query_row("SELECT COUNT(*) FROM text", [], |row| row.get(0)).unwrap();
    assert_eq!((left, texts(1)), (1, "xone".to_owned()));
}

#[test]
fn calls_stored_before_they_were_counted_are_counted() {
    let connection = database(6);
    let rows = r#"
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, json) VALUES
            (1, 'r', 'a', 1, 's', 0, '{"attributes":{"gen_ai.operation.name":"chat"}}'),
            (2, 'r', 'a', 2, 't', 0, '{"attributes":{"gen_ai.operation.name":"embeddings"}}'),
            (3, 'r', 'a', 3, 'u', 0, '{"attributes":{}}');"#;
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 6, 7);
    let sql = "SELECT group_concat(id) FROM span WHERE is_llm_call = 1";
    let calls: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(calls, "1");
}

#[test]
fn the_kept_numbers_of_rows_follow_the_tables() {
    // Later versions count new spans with their batch.
    const COUNTED: usize = 9;
    let connection = database(8);
    let rows = "
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, json) VALUES
            (1, 'r', 'a', 1, 's', 0, '{}'), (2, 'r', 'a', 2, 't', 0, '{}'), (3, 'r', 'b', 1, 's', 0, '{}');
        INSERT INTO attempt VALUES ('r', 'a', 1, '{}'), ('r', 'b', 2, '{}');
        INSERT INTO rollout VALUES ('r', 1, 0, 1, '{}');";
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 8, COUNTED);
    let counts = || -> (i64, i64, i64) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        connection.query_row("SELECT rollouts, attempts, spans FROM row_count", [], row).unwrap()
    };
    assert_eq!(counts(), (1, 2, 3));
    let changes = "
        INSERT INTO rollout VALUES ('q', 1, 0, 1, '{}'), ('r', 1, 0, 1, '{}') ON CONFLICT DO NOTHING;
        INSERT INTO attempt VALUES ('r', 'b', 2, '{}') ON CONFLICT (rollout_id, attempt_id) DO UPDATE SET json = '';
        DELETE FROM attempt WHERE attempt_id = 'a';
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, json) VALUES
            (4, 'r', 'b', 1, 's', 0, '{}'), (5, 'r', 'b', 1, 'u', 0, '{}') ON CONFLICT DO NOTHING;
        DELETE FROM span WHERE id < 3;";
    connection.execute_batch(changes).unwrap();
    assert_eq!(counts(), (2, 1, 2));
    // An older program has replaced an attempt.
    let replace = "INSERT OR REPLACE INTO attempt VALUES ('r', 'b', 3, '{}')";
    connection.execute_batch(replace).unwrap();
    migrate_from(&connection, COUNTED, MIGRATIONS.len());
    assert_eq!(counts(), (2, 1, 2));
    connection.execute_batch(replace).unwrap();
    let ignored = "INSERT INTO attempt VALUES ('r', 'b', 4, '{}') ON CONFLICT DO NOTHING";
    connection.execute_batch(ignored).unwrap();
    connection.execute_batch("INSERT INTO attempt VALUES ('r', 'c', 4, '{}')").unwrap();
    assert_eq!(counts(), (2, 2, 2));
}

#[test]
fn rollouts_that_ended_before_there_was_a_log_are_in_it() {
    let connection = database(4);
    let rows = r#"
        INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, json) VALUES
            ('late', 1, 0, 1, '{"status":"failed","end_time":1720000020.5}'),
            ('early', 1, 0, 2, '{"status":"succeeded","end_time":1720000003.25}'),
            ('open', 1, 0, 3, '{"status":"running","end_time":null}'),
            ('between', 1, 0, 4, '{"status":"cancelled","end_time":1720000010.0}');"#;
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 4, 5);
    let sql = "SELECT group_concat(position || rollout_id, ' ') FROM (SELECT * FROM terminal ORDER BY position)";
    let log: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(log, "0early 1between 2late");
}

#[test]
fn one_index_lists_and_counts_the_spans_of_a_rollout() {
    let connection = database(16);
    let rows = "
        INSERT INTO span (id, rollout_id, attempt_id, sequence_id, span_id, is_error, is_llm_call, json) VALUES
            (1, 'r', 'a', 1, 's', 0, 1, '{}'), (2, 'q', 'a', 1, 's', 0, 0, '{}'), (3, 'r', 'a', 2, 't', 0, 0, '{}'),
            (4, 'r', 'a', 3, 'u', 0, 1, '{}'), (5, 'r', 'b', 1, 's', 0, 0, '{}');";
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 16, MIGRATIONS.len());
    let numbers = |after, limit| -> Vec<u64> {
        let listed = outlines(&connection, &"r".into(), after, limit).unwrap();
        listed.iter().map(|outline| outline.number).collect()
    };
    assert_eq!((numbers(0, 10), numbers(1, 2), numbers(5, 1)), (vec![1, 3, 4, 5], vec![3, 4], vec![]));
    let plan = |sql: &str| -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<rusqlite::Result<Vec<_>>>();
        steps.unwrap().join("\n")
    };
    let counted = "SELECT COUNT(*) FROM span WHERE is_llm_call = 1 AND rollout_id = 'r'";
    for plan in [plan(&outlines_sql()), plan(counted)] {
        assert!(plan.contains("COVERING INDEX span_by_kind") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[test]
fn pieces_stored_before_they_were_counted_are_counted() {
    let connection = database(15);
    let rows = "
        INSERT INTO text (id, hash, data) VALUES (1, x'01', x'000102'), (2, x'02', x'00');
        INSERT INTO text (id, hash, data, parent) VALUES (3, x'03', x'0001', 2);";
    connection.execute_batch(rows).unwrap();
    migrate_from(&connection, 15, MIGRATIONS.len());
    let counts = || -> (i64, i64) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        connection.query_row("SELECT pieces, piece_bytes FROM row_count", [], row).unwrap()
    };
    assert_eq!(counts(), (3, 6));
    connection.execute_batch("DELETE FROM text WHERE id = 3").unwrap();
    assert_eq!(counts(), (2, 4));
}
