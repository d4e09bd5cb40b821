//! The standard set of derivation files is part of the executable: a new one means a new
//! build, which the macro that embeds them cannot tell cargo itself.

fn main() {
    println!("cargo:rerun-if-changed=derivations");
}
