;; Configuration of a shepherd that runs guix-daemon, and starts it again when it dies. The script that
;; executes the daemon is in the environment.
(register-services
 (list (service '(guix-daemon)
                #:start (make-forkexec-constructor
                         (list "/bin/bash" "-c" (getenv "BARE_GUIX_DAEMON"))
                         #:log-file "/var/log/guix-daemon.log")
                #:stop (make-kill-destructor)
                #:respawn? #t)))
(start-service (lookup-service 'guix-daemon))
