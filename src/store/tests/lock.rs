//! One store, one owner.

use super::*;

fn holder(refused: Result<(Driven, Report), StoreError>) -> String {
    match refused.map(drop) {
        Err(StoreError::Locked { holder, .. }) => holder,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_handle_of_this_process_is_refused_and_told_who_has_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = drive_directory(dir.path());
    let pid = format!("process {}", std::process::id());
    assert_eq!(holder(open_directory(dir.path(), &small())), pid);
    // and again: a refusal takes nothing away from the owner
    assert_eq!(holder(open_directory(dir.path(), &small())), pid);
    first.close().expect("closes");
    drive_directory(dir.path());
}

#[test]
fn a_second_process_is_refused_and_told_the_pid_of_the_first_until_that_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut owner = child::Child::start("hold", dir.path());
    owner.next_line().expect("the child has the store open");
    assert_eq!(holder(open_directory(dir.path(), &small())), format!("process {}", owner.pid()));
    owner.kill();
    drive_directory(dir.path());
}
