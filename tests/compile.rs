//! What a list of messages accepts, and what the compiler says of what it does not. The words are the crate's own
//! (`#[diagnostic::on_unimplemented]`); the snapshots see to it that they are still the first thing one reads.
//! `TRYBUILD=overwrite cargo test --test compile` writes them anew.

#[test]
fn every_shape_of_list_takes_its_messages_with_no_annotation_at_the_call() {
    trybuild::TestCases::new().pass("tests/compile/pass_*.rs");
}

#[test]
fn a_mistake_in_a_list_is_named_in_the_words_of_the_list() {
    trybuild::TestCases::new().compile_fail("tests/compile/fail_*.rs");
}
