//! Archives as clients send them, and as attackers would.

use super::*;
use crate::judge::build::{Cache, DOCKERFILE};
use crate::judge::testing::{Fake, agent, id, wait};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use std::io::Write;

const POLICY: &str = r#"image = { allow = ["build", "pull", "load"], pull = ["docker.io/*"], tags = ["*/*"] }"#;

/// An entry of this type, in the plainest form.
fn entry(kind: u8, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000001\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = block.to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn file(name: &str, data: &str) -> Vec<u8> {
    entry(b'0', name, "", data.as_bytes())
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.extend([0; 1024]);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What an archive holds: path, data.
fn listed(bytes: Vec<u8>) -> Vec<(String, String)> {
    wait(async {
        let mut source = Source::plain(Full::new(Bytes::from(bytes)));
        let mut out = Vec::new();
        while let Some(entry) = tar::next(&mut source).await.unwrap() {
            let data = tar::data(&mut source, entry.size).await.unwrap();
            tar::padding(&mut source, entry.size).await.unwrap();
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            out.push((path, String::from_utf8_lossy(&data).into_owned()));
        }
        out
    })
}

fn world() -> Fake {
    Fake::default().image("alpine:latest", 'a', None).image("mine:1", 'c', Some("me")).image(
        "their/app:1",
        'd',
        Some("they"),
    )
}

/// The context as the engine gets it, or the refusal.
fn context_of(dockerfile: &str, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let rules = ContextRules {
        dockerfile: dockerfile.to_owned(),
        args: Default::default(),
        target: None,
        pull: false,
        platform: None,
        cache: Cache::Used,
    };
    wait(async {
        let client = Full::new(Bytes::from(bytes));
        let (body, passage) = context(rules, None, Rc::new(agent(POLICY)), Rc::new(world()), client);
        let sent = body.collect().await;
        match passage.refusal() {
            Some(refusal) => {
                assert!(sent.is_err(), "a refused body must not end well");
                Err(refusal.message("test"))
            }
            None => Ok(sent.unwrap().to_bytes().to_vec()),
        }
    })
}

#[test]
fn a_context_passes_with_its_images_pinned() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let context = archive(&[
        entry(b'5', "src/", "", b""),
        file("./src/a", "data"),
        file("Dockerfile", "FROM alpine\nCOPY . /\n"),
        entry(b'2', "link", "/etc/passwd", b""),
        entry(b'L', "././@LongLink", "", long.as_bytes()),
        file("short", "long"),
    ]);
    let expected = [
        ("src", ""),
        ("src/a", "data"),
        ("Dockerfile", &format!("FROM {}\nLABEL com.buildkite.sockguard.owner=me\nCOPY . /\n", id('a'))),
        ("link", ""),
        (&long, "long"),
    ]
    .map(|(path, data)| (path.to_owned(), data.to_owned()));
    assert_eq!(listed(context_of(DOCKERFILE, context.clone()).unwrap()), expected);
    assert_eq!(listed(context_of(DOCKERFILE, gzip(&context)).unwrap()), expected);
    // What follows the end does not reach the engine.
    let mut trailed = context.clone();
    trailed.extend(file("Dockerfile", "FROM their/app:1"));
    assert_eq!(listed(context_of(DOCKERFILE, trailed).unwrap()), expected);
    let passed = context_of(DOCKERFILE, context).unwrap();
    assert_eq!(passed.len() % 512, 0);
    assert!(passed.ends_with(&[0; 1024]));
}

#[test]
fn the_engine_looks_for_the_lower_case_name_too() {
    let lower = file("dockerfile", "FROM alpine");
    let pinned = format!("FROM {}\nLABEL com.buildkite.sockguard.owner=me\n", id('a'));
    assert_eq!(listed(context_of(DOCKERFILE, archive(std::slice::from_ref(&lower))).unwrap())[0].1, pinned);
    let both = [lower.clone(), file("Dockerfile", "FROM scratch")];
    let passed = listed(context_of(DOCKERFILE, archive(&both)).unwrap());
    assert!(passed.contains(&("dockerfile".to_owned(), "FROM alpine".to_owned())), "{passed:?}");
    assert!(context_of(DOCKERFILE, archive(&[file("dockerfile", "FROM their/app:1")])).is_err());
    let other = archive(&[file("a/Other", "FROM alpine"), file("Dockerfile", "FROM their/app:1")]);
    assert_eq!(listed(context_of("a/Other", other).unwrap())[0].1, pinned);
}

#[test]
fn nothing_can_take_the_dockerfiles_place() {
    let fine = || file("Dockerfile", "FROM alpine");
    let evil = |name: &str| file(name, "FROM their/app:1");
    let pax = |name: &str| {
        let record = format!("path={name}\n");
        let length = record.len() + 3;
        entry(b'x', "p", "", format!("{length} {record}").as_bytes())
    };
    for (what, entries) in [
        ("foreign base", vec![evil("Dockerfile")]),
        ("twice", vec![fine(), evil("Dockerfile")]),
        ("twice, dotted", vec![fine(), evil("./Dockerfile")]),
        ("twice, absolute", vec![fine(), evil("/Dockerfile")]),
        ("twice, doubled slash", vec![fine(), evil(".//Dockerfile")]),
        ("parent", vec![fine(), evil("a/../Dockerfile")]),
        ("symlink", vec![entry(b'2', "Dockerfile", "other", b""), evil("other")]),
        ("symlink after", vec![fine(), entry(b'2', "Dockerfile", "other", b""), evil("other")]),
        ("hard link", vec![evil("other"), entry(b'1', "Dockerfile", "other", b"")]),
        ("directory", vec![fine(), entry(b'5', "Dockerfile/", "", b"")]),
        ("below", vec![fine(), evil("Dockerfile/x")]),
        ("through a link", vec![fine(), entry(b'2', "d", ".", b""), evil("d/Dockerfile")]),
        ("through a hard link", vec![entry(b'2', "s", ".", b""), entry(b'1', "d", "s", b""), evil("d/Dockerfile")]),
        ("by an extended header", vec![fine(), pax("Dockerfile"), evil("other")]),
        ("by a long name", vec![fine(), entry(b'L', "x", "", b"Dockerfile"), evil("other")]),
        ("sparse", vec![entry(b'S', "Dockerfile", "", b"")]),
        ("unknown type", vec![entry(b'7', "Dockerfile", "", b"FROM their/app:1")]),
        ("device", vec![fine(), entry(b'4', "sda", "", b"")]),
        ("looks compressed", vec![file("BZh9", "x"), fine()]),
    ] {
        assert!(context_of(DOCKERFILE, archive(&entries)).is_err(), "{what}");
    }
    for (what, bytes) in [
        ("a wrong checksum", {
            let mut bytes = archive(&[fine()]);
            bytes[0] = b'X';
            bytes
        }),
        ("a bare Dockerfile", b"FROM alpine\n".repeat(100)),
        ("cut short", archive(&[fine()])[..700].to_vec()),
        ("zeros within", [fine(), vec![0; 512], evil("Dockerfile")].concat()),
        ("bzip2", b"BZh91AY&SY".to_vec()),
        ("broken gzip", gzip(&archive(&[fine()]))[..40].to_vec()),
    ] {
        assert!(context_of(DOCKERFILE, bytes).is_err(), "{what}");
    }
    // Without the blocks of zeros at the end, engines take what is there.
    assert!(context_of(DOCKERFILE, fine()).is_ok());
    assert!(context_of(DOCKERFILE, Vec::new()).is_ok());
    let refused = context_of("a/Dockerfile", archive(&[entry(b'2', "a", "b", b""), evil("b/Dockerfile")]));
    assert!(refused.is_err());
}

/// What becomes of an image archive: the bytes that reach the engine and what is remembered then, or the refusal.
/// What the engine is given, and the names in the order in which the images get them.
fn loaded(bytes: Vec<u8>, world: &Fake) -> Result<(Bytes, Vec<String>), String> {
    loaded_within(bytes, world, 1 << 20)
}

fn loaded_within(bytes: Vec<u8>, world: &Fake, most: u64) -> Result<(Bytes, Vec<String>), String> {
    wait(async {
        let (judged, _) = images::receive(most, &agent(POLICY), world, Full::new(Bytes::from(bytes))).await;
        let judged = judged.map_err(|refusal| refusal.message("test"))?;
        let names = judged.loads.iter().flat_map(|load| &load.names).map(ToString::to_string).collect();
        let told = judged.body.size_hint().exact();
        let sent = judged.body.collect().await.unwrap().to_bytes();
        assert!(told.is_none_or(|length| length == sent.len() as u64), "the length is told before");
        Ok((sent, names))
    })
}

fn digest(data: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_no_image_archive_is_the_engines_to_tell() {
    let sent = |bytes: Vec<u8>| {
        wait(async {
            let (judged, _) =
                images::receive(1 << 20, &agent(POLICY), &Fake::default(), Full::new(Bytes::from(bytes))).await;
            judged.map(|judged| judged.body).map_err(|refusal| refusal.message("test")).unwrap().collect().await
        })
        .unwrap()
        .to_bytes()
    };
    let mut cut = archive(&[file("manifest.json", "[]")]);
    cut.truncate(513);
    for short in [b"garbage".to_vec(), gzip(b"garbage"), cut] {
        assert_eq!(sent(short), "x");
    }
    assert_eq!(sent(vec![b'g'; 2000]), "x".repeat(512));
    assert_eq!(sent(b"\x1F\x8B\x08garbage".to_vec()), Bytes::from_static(b"\x1F\x8B\x08garbage"));
    for empty in [vec![], archive(&[]), archive(&[file("x", "y")])] {
        assert_eq!(sent(empty), vec![0; 1024]);
    }
}

#[test]
fn what_is_remembered_of_an_image_archive_is_bounded() {
    let long = |number: usize| entry(b'L', "x", "", format!("{number}{}", "n".repeat(900_000)).as_bytes());
    let names: Vec<Vec<u8>> = (0..6).flat_map(|number| [long(number), file("x", "")]).collect();
    let values = format!("[{}1]", "1,".repeat(100_000));
    for (archive, why) in [
        (archive(&names), "the names in the archive are longer than 4194304 bytes together"),
        (archive(&[file("manifest.json", &values)]), "it has too many values"),
    ] {
        let refused = loaded_within(archive, &Fake::default(), 16 << 20).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}

/// As `docker save` of 20.10 writes it.
fn docker(tags: &str, labels: &str) -> Vec<Vec<u8>> {
    let layer = "layer";
    let config = format!(r#"{{"config":{{"Labels":{labels}}},"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, digest(layer));
    let name = format!("{}.json", digest(&config));
    let place = format!("{}/layer.tar", "1".repeat(64));
    let link = format!("{}/layer.tar", "2".repeat(64));
    vec![
        file(&name, &config),
        entry(b'5', &format!("{}/", "1".repeat(64)), "", b""),
        file(&place, layer),
        entry(b'2', &link, &format!("../{place}"), b""),
        file("manifest.json", &format!(r#"[{{"Config":"{name}","RepoTags":{tags},"Layers":["{link}"]}}]"#)),
        file("repositories", "{}"),
    ]
}

/// As newer engines and other tools write it.
fn oci(name: &str, labels: &str) -> Vec<Vec<u8>> {
    let blob = |data: &str| (file(&format!("blobs/sha256/{}", digest(data)), data), digest(data));
    let (layer, layer_digest) = blob("layer");
    let config = format!(r#"{{"config":{{"Labels":{labels}}},"rootfs":{{"diff_ids":["sha256:{layer_digest}"]}}}}"#);
    let (config, config_digest) = blob(&config);
    let manifest = format!(
        r#"{{"config":{{"digest":"sha256:{config_digest}"}},"layers":[{{"digest":"sha256:{layer_digest}"}}]}}"#
    );
    let (manifest, manifest_digest) = blob(&manifest);
    let index = format!(
        r#"{{"manifests":[{{"digest":"sha256:{manifest_digest}","annotations":{{"io.containerd.image.name":"{name}"}}}}]}}"#
    );
    vec![file("oci-layout", "{}"), file("index.json", &index), manifest, config, layer]
}

#[test]
fn saved_images_can_be_loaded_again() {
    let own = r#"{"com.buildkite.sockguard.owner":"me","com.buildkite.sockguard.binds":"","a":"b"}"#;
    for entries in
        [docker(r#"["mine:1","new:2"]"#, own), oci("docker.io/library/new:2", "null"), docker("null", "null")]
    {
        let bytes = archive(&entries);
        let (sent, names) = loaded(bytes.clone(), &world()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let expected: Vec<&str> = ["mine:1", "new:2"].into_iter().filter(|name| text.contains(name)).collect();
        assert_eq!(names, expected);
        // The engine is given the rest as it was, and no name.
        let sent = String::from_utf8_lossy(&sent);
        assert!(!sent.contains("mine:1") && !sent.contains("new:2"), "{sent}");
        assert!(!sent.contains("repositories"));
        assert!(sent.contains("manifest.json") || sent.contains("index.json"));
        assert!(sent.contains("rootfs") && sent.len().is_multiple_of(512));
        assert!(loaded(gzip(&bytes), &world()).is_ok());
    }
    let mut unchanged = world();
    let config = docker("null", "null")[0].clone();
    let name = String::from_utf8_lossy(&config[..64]).into_owned();
    unchanged.images.get_mut("alpine:latest").unwrap().id = crate::world::Id::new(format!("sha256:{name}"));
    assert!(
        loaded(archive(&docker(r#"["alpine:latest"]"#, "null")), &unchanged).is_ok(),
        "the name has this image already"
    );
}

#[test]
fn an_archive_cannot_take_what_is_not_its_loaders() {
    let foreign = r#"{"com.buildkite.sockguard.owner":"they"}"#;
    let replaced = |mut entries: Vec<Vec<u8>>, at: usize, with: Vec<u8>| {
        entries[at] = with;
        entries
    };
    let with = |mut entries: Vec<Vec<u8>>, more: Vec<u8>| {
        entries.push(more);
        entries
    };
    let good = || docker(r#"["new:1"]"#, "null");
    let manifest = |text: &str| replaced(good(), 4, file("manifest.json", text));
    let good_oci = || oci("docker.io/library/new:1", "null");
    for (what, entries) in [
        ("a foreign tag", docker(r#"["their/app:1"]"#, "null")),
        ("a shared tag", docker(r#"["docker.io/library/alpine:latest"]"#, "null")),
        ("a tag without a tag", docker(r#"["new"]"#, "null")),
        ("a foreign label", docker(r#"["new:1"]"#, foreign)),
        ("a reserved label", docker(r#"["new:1"]"#, r#"{"com.amazonaws.ecs.task-arn":"x"}"#)),
        ("a foreign tag in OCI", oci("docker.io/their/app:1", "null")),
        ("a foreign label in OCI", oci("docker.io/library/new:1", foreign)),
        ("folded keys twice", manifest(r#"[{"Config":"x","config":"y"}]"#)),
        ("an unknown configuration", manifest(r#"[{"Config":"x.json"}]"#)),
        ("a configuration by a way out", manifest(r#"[{"Config":"../x.json"}]"#)),
        ("a manifest twice", with(good(), file("manifest.json", "[]"))),
        ("a manifest twice, dotted", with(good(), file("./manifest.json", "[]"))),
        ("a link to a manifest", with(good(), entry(b'2', "x", "manifest.json", b""))),
        ("a link out", with(good(), entry(b'2', &format!("{}/layer.tar", "3".repeat(64)), "../../etc/shadow", b""))),
        ("a hard link", with(good(), entry(b'1', "x", "manifest.json", b""))),
        ("a foreign layer by its name", replaced(good(), 2, file(&format!("{}/layer.tar", "1".repeat(64)), "other"))),
        ("the oldest form", vec![file("a/json", "{}"), file("repositories", "{}")]),
        ("the oldest form beside OCI", with(good_oci(), file("a/json", "{}"))),
        ("the oldest form among the blobs", with(good_oci(), file("blobs/json", "{}"))),
        ("a configuration under another name", {
            let mut entries = good_oci();
            let evil = oci("docker.io/library/new:1", foreign).remove(3);
            // The index leads to the evil one by its digest; a fair one stands at its place.
            let index = oci("docker.io/library/new:1", foreign);
            let place = String::from_utf8_lossy(&evil[..77]).into_owned();
            entries[1] = index[1].clone();
            entries[2] = index[2].clone();
            entries.push(file(&place, "{}"));
            let data = evil[512..].to_vec();
            let length = data.iter().rposition(|b| *b != 0).unwrap() + 1;
            entries.push(entry(b'0', "blobs/sha256/other", "", &data[..length]));
            entries
        }),
        ("a parent elsewhere", {
            let text = String::from_utf8_lossy(&good()[4][512..]).trim_end_matches('\0').to_owned();
            manifest(&text.replace("\"RepoTags\"", &format!("\"Parent\":\"{}\",\"RepoTags\"", id('a'))))
        }),
    ] {
        assert!(loaded(archive(&entries), &world()).is_err(), "{what}");
    }
    assert!(loaded(archive(&good()), &world()).is_ok());
    assert!(loaded(archive(&good_oci()), &world()).is_ok());
    assert!(loaded_within(archive(&good()), &world(), 2000).unwrap_err().contains("image.max-archive-bytes"));
}

#[test]
fn archives_share_a_limit() {
    let bytes = archive(&docker(r#"["new:1"]"#, "null"));
    let limit = bytes.len() as u64 + 1000;
    let load = async || {
        let body = Full::new(Bytes::from(bytes.clone()));
        images::receive(limit, &agent(POLICY), &world(), body).await.0.map_err(|refusal| refusal.status().as_u16())
    };
    wait(async {
        let first = load().await.ok().unwrap();
        assert_eq!(load().await.err(), Some(413), "while the first is on its way");
        drop(first);
        assert!(load().await.is_ok());
    });
}

#[test]
fn labels_and_environments_in_archives_are_bounded() {
    let long = "x".repeat(300 << 10);
    let labels = format!(r#"{{"a":"{long}"}}"#);
    assert!(loaded(archive(&docker("null", &labels)), &world()).unwrap_err().contains("bytes"));
    let environment = format!(r#"null,"Env":["A={long}"]"#);
    assert!(loaded(archive(&docker("null", &environment)), &world()).unwrap_err().contains("environment"));
}

#[test]
fn an_import_is_cut_at_its_limit() {
    for (length, fine) in [(1000, true), (1001, false)] {
        let (body, passage) = limited(1000, Full::new(Bytes::from(vec![7; length])));
        let sent = wait(body.collect());
        assert_eq!((sent.is_ok(), passage.refusal().is_none()), (fine, fine));
    }
}
