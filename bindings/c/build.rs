//! Gives the shared library the name under which programs look for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs linked with one version run with every later one of the same number.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsolon.so.0");
}
