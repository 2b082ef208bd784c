;; A closure with every shape that an item can have, built without a network.
;;
;;   guix repl -- build.scm fill BUSYBOX TREE...   adds these trees, notes the paths in inputs.scm
;;                                                 beside this file, and builds on them
;;   guix repl -- build.scm check                  the same with the inputs noted, building forbidden
;;
;; Prints the path of `top'. All inputs are items of the store, so that a store which holds the
;; fixture, in whatever version of Guix, computes the same derivations and has nothing left to build.
(use-modules (guix store) (guix derivations) (gcrypt hash) (rnrs bytevectors)
             (ice-9 match) (srfi srfi-1))

(define directory (dirname (car (command-line))))
(define noted (string-append directory "/inputs.scm"))
(define arguments (cdr (command-line)))
(define filling? (string=? (car arguments) "fill"))

(define store (open-connection))
(set-build-options store #:use-substitutes? #f #:offload? #f
                   #:max-build-jobs (if filling? 1 0))

(define (add tree)
  (add-to-store store (basename tree) #t "sha256" tree))

(define inputs
  (if filling?
      (let ((added (map add (cdr arguments))))
        (call-with-output-file noted (lambda (port) (write added port)))
        added)
      (call-with-input-file noted read)))
(define busybox (car inputs))
(define packages (cdr inputs))

(define* (build name script #:key (inputs '()) (sources '()) (outputs '("out"))
                (environment '()) (more '()))
  "A derivation whose SCRIPT may name the outputs of INPUTS, each a derivation or a pair of one and
the names of its outputs."
  (apply derivation store name (string-append busybox "/bin/sh") (list "-euc" script)
         #:env-vars `(("PATH" . ,(string-append busybox "/bin")) ,@environment)
         #:inputs (map (match-lambda
                         ((drv outputs ...) (derivation-input drv outputs))
                         (drv (derivation-input drv '("out"))))
                       inputs)
         #:sources (cons busybox sources)
         #:outputs outputs
         more))

(define* (out drv #:optional (output "out"))
  (derivation->output-path drv output))

(define (text . parts)
  (string-join (map (lambda (part) (if (derivation? part) (out part) part)) parts) ""))

(define leaf (build "leaf" "mkdir $out; echo leaf >$out/file"))

(define middle
  (build "middle" (text "mkdir $out; echo " leaf "/file >$out/reference") #:inputs (list leaf)))

(define selfish
  (build "selfish" "mkdir $out; echo x >$out/file; ln -s $out/file $out/self"))

(define twins
  (build "twins"
         (text "mkdir $out $doc; echo library >$out/library; "
               "echo \"manual of $out and " middle "\" >$doc/manual")
         #:inputs (list middle) #:outputs '("out" "doc")))

(define fixed
  (build "fixed" "echo fixed >$out"
         #:more (list #:hash-algo 'sha256 #:hash (sha256 (string->utf8 "fixed\n")))))

(define note (add-text-to-store store "note" "a text that names nothing\n"))

(define plain (build "plain" "echo plain >$out"))

(define program
  (build "program" (text "echo '#!" busybox "/bin/sh' >$out; chmod +x $out")))

(define link (build "link" (text "ln -s " leaf "/file $out") #:inputs (list leaf)))

;; Equal content in two items: the daemon keeps it once, unless it is small.
(define shared
  "seq 1 5000 >$out/same; cp $out/same $out/run; chmod +x $out/run; echo small >$out/small")
(define one (build "shared-one" (text "mkdir $out; " shared "; echo 1 >$out/own")))
(define two (build "shared-two" (text "mkdir $out; " shared "; cp $out/same $out/again")))

(define names
  (build "names" "mkdir $out
    cd $out
    long=$(printf '%0120d' 7)
    echo long >\"$long\"
    mkdir -p \"deep/$long/$long/$long\"
    echo deep >\"deep/$long/$long/$long/$long\"
    echo longest >\"$(printf '%0255d' 7)\"
    echo latin1 >\"$(printf 'caf\\351')\"
    echo utf8 >\"$(printf 'caf\\303\\251')\"
    echo newline >\"$(printf 'two\\nlines')\"
    echo dash >./-n
    echo space >'a b'
    echo lower >case
    echo upper >CASE
    ln -s \"$(printf 'caf\\351')\" \"$(printf 'to-caf\\351')\""))

(define shapes
  (build "shapes"
         (text "mkdir -p $out/bin $out/empty-directory
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
    ln -s " leaf " absolute
    ln -s nowhere dangling
    ln -s . loop")
         #:inputs (list leaf)))

;; The program of a job, where Guile is among the packages: Guile with its libraries, all items.
(define job
  (build "job"
         (string-append "mkdir -p $out/bin
    for package in " (string-join packages) "; do
      usr=$package/usr
      for there in $usr/share/guile/site/3.0 $usr/share/guile/3.0; do
        [ ! -d $there ] || scheme=$scheme:$there
      done
      for lib in $usr/lib $usr/lib/x86_64-linux-gnu; do
        [ ! -d $lib ] || libraries=$libraries:$lib
        [ ! -d $lib/guile/3.0/extensions ] || extensions=$extensions:$lib/guile/3.0/extensions
        for there in $lib/guile/3.0/ccache $lib/guile/3.0/site-ccache; do
          [ ! -d $there ] || compiled=$compiled:$there
        done
      done
      for program in $usr/bin/guile $usr/bin/guile-3.0 $usr/lib/x86_64-linux-gnu/guile/3.0/bin/guile; do
        [ ! -f $program -o -L $program ] || guile=$program
      done
    done
    cat >$out/bin/job <<END
#!" busybox "/bin/sh
export GUILE_AUTO_COMPILE=0
export GUILE_SYSTEM_PATH=${scheme#:} GUILE_SYSTEM_COMPILED_PATH=${compiled#:}
export GUILE_SYSTEM_EXTENSIONS_PATH=${extensions#:} LD_LIBRARY_PATH=${libraries#:}
exec $guile \"\\$@\"
END
    chmod +x $out/bin/job")
         #:sources packages
         #:environment '(("scheme" . "") ("compiled" . "") ("extensions" . "") ("libraries" . "")
                         ("guile" . "false"))))

(define profile
  (build "profile"
         (string-append "mkdir $out; for package in " (string-join packages)
                        "; do ln -s $package $out/; done")
         #:sources packages))

(define top
  (let ((parts (list leaf middle selfish twins fixed plain program link one two names shapes
                     profile job)))
    (build "top"
           (string-append "mkdir $out; for part in "
                          (string-join (cons* note (out twins "doc") (map out parts)))
                          "; do ln -s $part $out/; done")
           #:inputs (cons (list twins "doc" "out") (delete twins parts))
           #:sources (list note))))

(build-derivations store (list top))
(display (out top))
(newline)
