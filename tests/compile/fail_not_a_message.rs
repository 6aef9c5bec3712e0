include!("common.rs");

struct Plain;

actor!(Takes, (Letter<0>, Plain));

fn main() {}
