//! What `install` puts below a prefix is all that a program needs: by `pkg-config`, shared and static.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

#[path = "../../../tests/common/mod.rs"]
mod common;
mod tools;

use common::Solond;

fn install(arguments: &[&str]) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install");
    let from = tools::libraries();
    tools::said(Command::new(script).args(arguments).arg("--from").arg(from).output().expect("the shell runs"))
}

#[test]
fn a_program_finds_the_installed_library_by_pkg_config_shared_and_static() {
    let pkg_config: OsString = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    if !tools::have(&pkg_config, "pkg-config") {
        return;
    }
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let prefix = root.path().join("usr");
    // Some systems have their libraries there.
    install(&["--prefix", prefix.to_str().unwrap(), "--libdir", "lib64"]).unwrap();
    let flags = |arguments: &[&str]| {
        let mut command = Command::new(&pkg_config);
        command.args(arguments).env("PKG_CONFIG_PATH", prefix.join("lib64/pkgconfig"));
        let output = command.output().expect("pkg-config runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(flags(&["--modversion", "solon"]), [env!("CARGO_PKG_VERSION")]);

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/worker.c");
    let works = |program: &Path| {
        let flags = ["--job-dimension=2", "--job-groups=1", "--job-adversaries=0", "--job-compression=1"];
        let mut solond = Solond::spawn(Command::new(tools::solond()), "127.0.0.1:0", &flags);
        solond.wait_until_ready();
        let mut worker = Command::new(program);
        worker.env_clear().env("SOLON_ENDPOINT", &solond.address).env("SOLON_WORKER", "0");
        let output = worker.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(output.status.success() && said.contains("slope 3.00, intercept -1.00"), "{said}");
    };
    let needs = |program: &Path| {
        use object::read::elf::{Dyn, FileHeader};
        let bytes = std::fs::read(program).unwrap();
        let header = object::elf::FileHeader64::<object::Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let sections = header.sections(endian, &*bytes).unwrap();
        let (entries, link) = sections.dynamic(endian, &*bytes).unwrap().expect("a dynamic section");
        let strings = sections.strings(endian, &*bytes, link).unwrap();
        let needed = entries.iter().filter(|entry| entry.tag32(endian) == Some(object::elf::DT_NEEDED));
        let name =
            |entry: &object::elf::Dyn64<_>| String::from_utf8(entry.string(endian, strings).unwrap().to_vec()).unwrap();
        needed.map(name).collect::<Vec<String>>()
    };

    let shared = root.path().join("shared");
    let mut compile = Command::new(tools::cc());
    compile.arg("-std=c99").arg(&source).args(flags(&["--cflags", "--libs", "solon"])).arg("-o").arg(&shared);
    compile.arg(format!("-Wl,-rpath,{}", prefix.join("lib64").display()));
    tools::said(compile.output().unwrap()).unwrap();
    assert!(needs(&shared).contains(&"libsolon.so.0".to_owned()), "{:?}", needs(&shared));
    works(&shared);

    let alone = root.path().join("static");
    // As a distribution's package without the shared library would have it.
    for name in ["libsolon.so", "libsolon.so.0"] {
        std::fs::remove_file(prefix.join("lib64").join(name)).unwrap();
    }
    let mut compile = Command::new(tools::cc());
    compile
        .arg("-std=c99")
        .arg(&source)
        .args(flags(&["--cflags", "--libs", "--static", "solon"]))
        .arg("-o")
        .arg(&alone);
    tools::said(compile.output().unwrap()).unwrap();
    assert!(!needs(&alone).iter().any(|name| name.starts_with("libsolon")), "{:?}", needs(&alone));
    works(&alone);
}

#[test]
fn packages_are_made_below_another_directory_and_name_the_final_one() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    install(&["--prefix", "/usr", "--destdir", root.path().to_str().unwrap()]).unwrap();
    let library = root.path().join("usr/lib");
    let text = std::fs::read_to_string(library.join("pkgconfig/solon.pc")).unwrap();
    assert!(text.starts_with("prefix=/usr\n") && text.contains("libdir=${prefix}/lib\n"), "{text}");
    assert!(!text.contains('@'), "{text}");
    let real = std::fs::canonicalize(library.join("libsolon.so")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(real.ends_with(format!("libsolon.so.{version}")), "{}", real.display());
    assert!(install(&["--prefix", "usr"]).unwrap_err().contains("expected an absolute path"));
    assert!(install(&["--prefx", "/usr"]).unwrap_err().contains("there is no --prefx"));
}
