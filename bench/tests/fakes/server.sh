#!/bin/sh
# A server that only says it is one. --port N is what it claims to listen on; --leaves: a process in a session of its own listens there, and stays; --dies: ends when a file `die` appears beside it;
# --drained N: so many connections were open when it was told to end; --foreign: says no more than its address, and nothing at its end;
# --handler-work-us N: what it declares; --listen unix:PATH: that it listens there instead.
here=$(dirname "$0")
port=0
dies=no
drained=10
foreign=no
leaves=no
work=0
address=
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=$2; shift ;;
        --drained) drained=$2; shift ;;
        --handler-work-us) work=$2; shift ;;
        --listen) case $2 in unix:*) address=$2 ;; esac; shift ;;
        --dies) dies=yes ;;
        --leaves) leaves=yes ;;
        --foreign) foreign=yes ;;
    esac
    shift
done
address=${address:-127.0.0.1:$port}
trap 'echo "{\"event\":\"final\",\"drained_in_time\":true,\"messages_received\":1000,\"messages_sent\":1000,\"bytes_received\":0,\"bytes_sent\":0,\"connections_accepted\":10,\"handshakes\":10,\"http_responses\":0,\"refused\":0,\"handshake_timeouts\":0,\"idle_timeouts\":0,\"pings_received\":0,\"violations\":0,\"dropped\":0,\"slow_consumers_closed\":0,\"accept_errors\":0,\"drained\":'$drained'}"; exit 0' TERM
echo $$ >"$here/server.pid"
if [ $leaves = yes ]; then
    rm -f "$here/listens"
    setsid python3 -c "
import os, pathlib, socket, time
listener = socket.create_server(('127.0.0.1', $port))
pathlib.Path('$here/listens').touch()
with open('$here/left', 'a') as left:
    left.write(f'{os.getpid()}\n')
time.sleep(60)" &
    until [ -e "$here/listens" ]; do sleep 0.01; done
fi
if [ $foreign = yes ]; then
    trap 'exit 0' TERM
    echo "{\"address\":\"$address\"}"
else
    echo "{\"event\":\"ready\",\"server\":\"fake\",\"runtime\":\"sh 1\",\"address\":\"$address\",\"pid\":$$,\"options\":{\"handler_work_us\":$work}}"
fi
while :; do
    if [ $dies = yes ] && [ -e "$here/die" ]; then
        rm "$here/die"
        echo "out of luck" >&2
        exit 3
    fi
    sleep 0.02
done
