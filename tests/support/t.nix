# A closure with every shape that an item can have. All inputs are paths of the store, named in
# inputs.json, so that a store which holds the fixture, in whatever version of Nix, evaluates this to
# the same derivations and has nothing left to build.
let
  inputs = builtins.fromJSON (builtins.readFile ./inputs.json);
  busybox = builtins.storePath inputs.busybox;
  packages = map builtins.storePath inputs.packages;

  build = name: more: script: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "${busybox}/bin/sh";
    args = [ "-euc" script ];
    PATH = "${busybox}/bin";
  } // more);
in rec {
  leaf = build "leaf" { } "mkdir $out; echo leaf >$out/file";

  middle = build "middle" { } "mkdir $out; echo ${leaf}/file >$out/reference";

  selfish = build "selfish" { } "mkdir $out; echo x >$out/file; ln -s $out/file $out/self";

  twins = build "twins" { outputs = [ "out" "dev" ]; } ''
    mkdir $out $dev
    echo library >$out/library
    echo "header of $out and ${middle}" >$dev/header
  '';

  fixed = build "fixed" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed\n";
  } "echo fixed >$out";

  note = builtins.toFile "note" "a text that names nothing\n";

  plain = build "plain" { } "echo plain >$out";

  program = build "program" { } "echo '#!${busybox}/bin/sh' >$out; chmod +x $out";

  link = build "link" { } "ln -s ${leaf}/file $out";

  names = build "names" { } ''
    mkdir $out
    cd $out
    long=$(printf '%0120d' 7)
    echo long >"$long"
    mkdir -p "deep/$long/$long/$long"
    echo deep >"deep/$long/$long/$long/$long"
    echo longest >"$(printf '%0255d' 7)"
    echo latin1 >"$(printf 'caf\351')"
    echo utf8 >"$(printf 'caf\303\251')"
    echo newline >"$(printf 'two\nlines')"
    echo dash >./-n
    echo space >'a b'
    echo lower >case
    echo upper >CASE
    ln -s "$(printf 'caf\351')" "$(printf 'to-caf\351')"
  '';

  shapes = build "shapes" { } ''
    mkdir -p $out/bin $out/empty-directory
    cd $out
    echo '#!/bin/sh' >bin/run
    chmod 755 bin/run
    : >empty-file
    : >empty-program
    chmod 755 empty-program
    seq 1 1500000 >large
    echo one >one
    ln one same-inode
    ln -s one relative
    ln -s ${leaf} absolute
    ln -s nowhere dangling
    ln -s . loop
  '';

  profile = build "profile" { inherit packages; } ''
    mkdir $out
    for package in $packages; do ln -s $package $out/; done
  '';

  top = build "top" { } ''
    mkdir $out
    for part in ${leaf} ${middle} ${selfish} ${twins} ${twins.dev} ${fixed} ${note} ${plain} \
        ${program} ${link} ${names} ${shapes} ${profile}; do
      ln -s $part $out/
    done
  '';
}
