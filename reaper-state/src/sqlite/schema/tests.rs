use super::*;

fn memory() -> Connection {
    Connection::open_in_memory().expect("a database")
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), Error> {
    bring_up_to_date(connection, Path::new("/db"), migrations)
}

#[test]
fn each_migration_runs_once_and_keeps_what_is_there() {
    let mut connection = memory();
    migrate(&mut connection, &["CREATE TABLE a (x INTEGER)"]).expect("the first release");
    connection
        .execute("INSERT INTO a VALUES (1)", [])
        .expect("insert");
    let two = [
        "CREATE TABLE a (x INTEGER)",
        "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 2",
    ];
    for _ in 0..2 {
        migrate(&mut connection, &two).expect("the next release");
    }
    let row: (i64, i64) = connection
        .query_row("SELECT x, y FROM a", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("a row");
    assert_eq!(row, (1, 2));
    assert_eq!(version(&connection, Path::new("/db")).expect("version"), 2);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let mut connection = memory();
    let first = ["CREATE TABLE a (x INTEGER)"];
    migrate(&mut connection, &first).expect("the first release");
    let broken = [first[0], "CREATE TABLE b (x INTEGER)", "no SQL"];
    assert!(matches!(
        migrate(&mut connection, &broken),
        Err(Error::Io { .. })
    ));
    assert_eq!(version(&connection, Path::new("/db")).expect("version"), 1);
    assert!(
        connection.execute("SELECT * FROM b", []).is_err(),
        "the step before is undone too"
    );
}

#[test]
fn a_newer_schema_is_refused_by_name() {
    let mut connection = memory();
    migrate(
        &mut connection,
        &["CREATE TABLE a (x INTEGER)", "CREATE TABLE b (x INTEGER)"],
    )
    .expect("a newer release");
    match migrate(&mut connection, &["CREATE TABLE a (x INTEGER)"]) {
        Err(Error::NewerStore {
            found: 2, known: 1, ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_database_of_another_program_is_refused_and_not_touched() {
    let mut connection = memory();
    connection
        .execute_batch("CREATE TABLE theirs (x)")
        .expect("theirs");
    let answer = migrate(&mut connection, &["CREATE TABLE a (x INTEGER)"]);
    assert!(matches!(answer, Err(Error::Io { .. })), "{answer:?}");
    assert!(connection.execute("INSERT INTO a VALUES (1)", []).is_err());
}
