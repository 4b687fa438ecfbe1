# Loaded into Redis' test suite where it starts its own servers: clients of the suite reach each of them through a Crossfade of its own. What the suite
# starts otherwise (replicas, redis-cli, redis-benchmark) and its raw sockets go to the servers themselves.
array set ::through {}

# Not find_available_port, which finds ports free that are in use on 127.0.0.1 only.
proc through_port {} {
    while 1 {
        set port [expr {int(11000 + rand() * 6000)}]
        if {[catch {socket 127.0.0.1 $port} probe]} { return $port }
        close $probe
    }
}

proc through_start {port} {
    set admin [through_port]
    set listen [through_port]
    set place [tmpdir crossfade]
    set file [open $place/crossfade.toml w]
    puts $file "\[admin\]\nlisten = \"127.0.0.1:$admin\"\n\[data\]\ndir = \"$place/data\""
    puts $file "\[cores\]\ndrain_deadline_ms = 100"
    puts $file "\[endpoints.old\]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:$port/0\""
    puts $file "\[interlays.suite\]\nkind = \"redis\"\nlisten = \"127.0.0.1:$listen\"\nsource = \"old\"\nsharing = \"$::env(SUITE_SHARING)\""
    close $file
    set pid [exec $::env(CROSSFADE_BIN) serve --config $place/crossfade.toml >> $place/log 2>> $place/log &]
    for {set tries 0} {$tries < 200} {incr tries} {
        if {![catch {socket 127.0.0.1 $listen} probe]} {
            close $probe
            set ::through($port) [list $listen $pid]
            return
        }
        after 20
    }
    error "crossfade did not start: [exec tail -3 $place/log]"
}

proc through_stop {port} {
    if {[info exists ::through($port)]} {
        catch {exec kill -9 [lindex $::through($port) 1]}
        unset ::through($port)
    }
}

rename redis through_direct
proc redis {{server 127.0.0.1} {port 6379} args} {
    if {![info exists ::through($port)]} { through_start $port }
    through_direct $server [lindex $::through($port) 0] {*}$args
}

rename kill_server through_kill_server
proc kill_server {config} {
    through_kill_server $config
    if {[dict exists $config port]} { through_stop [dict get $config port] }
}
