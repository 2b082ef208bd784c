;; A shepherd that has guix-daemon in its charge, and starts it again when it dies. The script which
;; becomes the daemon is in the environment.
(register-services
 (list (service '(guix-daemon)
                #:start (make-forkexec-constructor
                         (list "/bin/bash" "-c" (getenv "BARE_GUIX_DAEMON"))
                         #:log-file "/var/log/guix-daemon.log")
                #:stop (make-kill-destructor)
                #:respawn? #t)))
(start-service (lookup-service 'guix-daemon))
