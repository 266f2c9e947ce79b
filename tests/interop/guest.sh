# Guest side of the tests in the virtual machine, whoever the peer is: oe-node in namespace a, the
# peer in b, and in d the name server of their signed reverse zone, all behind a switch s.
# Sourced with RIG, OE and KEYS set. A peer's own script sets LOG, its daemon's log, and has
# peer_stop and once WHO.
. "$RIG/lsw-lib.sh"
IPD=192.1.2.254 ZONE=2.1.192.in-addr.arpa DIR=/tmp/oe
mkdir -p $DIR /etc/dns
install -m600 "$KEYS/host.key" $DIR/host.key
OEKEY=$(cat "$KEYS/host.ipseckey")

say() { echo "STORY $*"; }
# at WHERE: how far a story has come
at() { echo "  ${SECONDS}s $*"; }

# fail STORY WHY: ends the machine, with the last that both daemons and the wire have to say
fail() {
  say "$1: FAILED: $2"
  for log in $DIR/log "$LOG"; do echo "== $log"; tail -n 100 "$log" 2>/dev/null | cut -c1-300; done
  echo "== $IPB"; ip -n b xfrm state | grep -v "auth\|enc\|aead"; ip -n b xfrm policy | head -40
  echo "== wire"; kill $DUMP 2>/dev/null; wire "" | tail -40 | cut -c1-200
  exit 1
}

network() {
  for m in bridge tun; do modprobe $m 2>/dev/null; done
  nets
  for n in s d; do ip netns add $n; ip -n $n link set lo up; done
  ip -n a link del va; ip -n s link add br0 type bridge; ip -n s link set br0 up
  for n in a b d; do
    ip link add v$n netns $n type veth peer name p$n netns s
    ip -n s link set p$n master br0 up
  done
  ip -n a addr add $IPA/24 dev va; ip -n b addr add $IPB/24 dev vb; ip -n d addr add $IPD/24 dev vd
  for n in a b d; do ip -n $n link set v$n up; done
  for n in a b; do
    ip -n $n route replace default via $IPD
    ip netns exec $n sysctl -qw net.ipv4.conf.v$n.send_redirects=0
    mkdir -p /etc/netns/$n; echo "nameserver $IPD" >/etc/netns/$n/resolv.conf
  done
  # The first SA of all has the kernel look for modules, which takes seconds here.
  ip -n b xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 256 mode transport \
    aead "rfc4106(gcm(aes))" 0x$(printf '%072d' 1) 128 && ip -n b xfrm state flush
}

# zone RECORD...: signs and serves the reverse zone with these records
zone() {
  cd /etc/dns
  { echo "\$ORIGIN $ZONE."; echo "\$TTL 300"
    echo "@ IN SOA ns.$ZONE. root.$ZONE. 1 3600 600 86400 300"; echo "@ IN NS ns.$ZONE."; echo "ns IN A $IPD"
    printf '%s\n' "$@"; } >zone
  [ -s anchor.key ] || { K=$(ldns-keygen -r /dev/urandom -a ECDSAP256SHA256 -k $ZONE); cp $K.key anchor.key; echo $K >key; }
  ldns-signzone -o $ZONE -f zone.signed zone "$(cat key)" || exit 9
  cat >unbound.conf <<U
server:
	interface: $IPD
	access-control: 0.0.0.0/0 allow
	chroot: ""
	username: ""
	directory: "/etc/dns"
	pidfile: /run/unbound.pid
	logfile: /tmp/unbound.log
	use-syslog: no
	module-config: "validator iterator"
	trust-anchor-file: /etc/dns/anchor.key
	local-zone: "$ZONE" nodefault
remote-control:
	control-enable: no
auth-zone:
	name: "$ZONE"
	zonefile: /etc/dns/zone.signed
	for-upstream: yes
	for-downstream: no
	fallback-enabled: no
U
  [ -s /run/unbound.pid ] && { kill "$(cat /run/unbound.pid)"; sleep 1; }
  ip netns exec d unbound -c /etc/dns/unbound.conf || exit 8
}

# node ENCAPSULATION [LINES FOR POLICY, AND MORE]: oe-node in a
node() {
  # Whom it remembers it would call at once.
  rm -rf $DIR/state
  cat >$DIR/oe-node.toml <<T
[node]
key = "$DIR/host.key"
state-dir = "$DIR/state"
control-socket = "$DIR/control.sock"
encapsulation = "$1"
[dns]
resolvers = ["$IPD"]
trust-anchors = "/etc/dns/anchor.key"
[policy]
${2:-}
T
  RUST_LOG=debug ip netns exec a "$OE" run --config $DIR/oe-node.toml >$DIR/log 2>&1 &
  NODE=$!
  for i in $(seq 150); do
    status >/dev/null 2>&1 && return 0
    sleep 0.2
  done
  fail start "oe-node does not answer"
}

status() { "$OE" status --json --config $DIR/oe-node.toml; }

# of EXPRESSION: whether this holds of our status, s
of() { status | python3 -c "
import json,sys
s = json.load(sys.stdin)
sys.exit(not ($1))" 2>/dev/null; }

# how often we have called, and have been called with success
calls() {
  status | python3 -c "
import json,sys
c = json.load(sys.stdin)['counters']['keying']
print(c['calls'], c['visitors_accepted'])"
}

# called STORY CALLER BEFORE: since those counts only this side has called
called() {
  set -- "$1" "$2" $3 $(calls)
  case $2 in
  a) [ "$5" -gt "$3" ] && [ "$6" -eq "$4" ] ;;
  b) [ "$5" -eq "$3" ] && [ "$6" -gt "$4" ] ;;
  esac || fail "$1" "$2 was to call; calls and visits before: $3 $4, after: $5 $6"
}

# keyed TRUST WHO: waits until the peer's address is encrypted to. An emulated peer on a busy
# machine may take longer to answer than a call lasts: then it calls again.
keyed() {
  for i in $(seq 25); do
    S=$(status)
    echo "$S" | python3 -c "
import json,sys
for d in json.load(sys.stdin)['destinations']:
    if d['destination'] == '$IPB' and d['state'] == 'keyed' and d['trust'] == '$1': sys.exit(0)
    if d['destination'] == '$IPB' and d['state'] in ('clear-text', 'deny'): sys.exit(2)
sys.exit(1)" 2>/dev/null
    case $? in
    0) return 0 ;;
    2) "$OE" forget --config $DIR/oe-node.toml $IPB >/dev/null 2>&1
       once ${2:-a} ;;
    esac
    sleep 0.5
  done
  echo "$S"; return 1
}

# mode WANTED [CALL]: waits until our connection is up, in this mode; calls again if an emulated
# peer has taken too long to answer
mode() {
  for i in $(seq 30); do
    [ -z "${2:-}" ] || ip netns exec a ping -n -c 1 -W 5 $IPB >/dev/null 2>&1
    S=$(status)
    echo "$S" | python3 -c "
import json,sys
c = json.load(sys.stdin)['connections'][0]
sys.exit(0 if c['state'] == 'up' and c['pairs'] == 1 and c['mode'] == '$1' else 1)" 2>/dev/null && return 0
    sleep 0.5
  done
  echo "$S"; return 1
}

# kernel STORY WHEN MODE: the peer's kernel has this mode and no other
kernel() {
  [ "$(ip -n b xfrm state | grep -o "mode [a-z]*" | sort -u)" = "mode $3" ] || fail "$1" "$2: $(ip -n b xfrm state)"
}

there() { ip netns exec a ping -n -c 8 -i 0.5 -W 4 $IPB; }
back() { ip netns exec b ping -n -c 8 -i 0.5 -W 4 $IPA; }

# both STORY WHEN: packets of every size and a stream, both ways
both() {
  for size in 56 0 1400 4000; do
    ip netns exec a ping -n -c 2 -i 0.3 -W 5 -s $size $IPB | grep -q " 0% packet loss" || fail "$1" "$2: $size octets"
    ip netns exec b ping -n -c 2 -i 0.3 -W 5 -s $size $IPA | grep -q " 0% packet loss" || fail "$1" "$2: $size octets back"
  done
  head -c 200000 /dev/urandom >$DIR/sent
  ip netns exec b timeout 30 nc -l -N 7000 >$DIR/came </dev/null & NC=$!
  for i in $(seq 100); do ip netns exec b ss -Hltn | grep -q ":7000 " && break; sleep 0.1; done
  ip netns exec a timeout 30 nc -N $IPB 7000 <$DIR/sent >/dev/null
  wait $NC; cmp -s $DIR/sent $DIR/came || fail "$1" "$2: stream"
}

# what goes between the two, and between whatever stands behind them
capture() { ip netns exec s tcpdump -Uni pa -w $DIR/wire "host $IPA and host $IPB or net 10.0.0.0/8" 2>/dev/null & DUMP=$!; sleep 0.5; }
wire() { tcpdump -nr $DIR/wire $1 2>/dev/null; }

# protected STORY [PROTOCOL]: nothing went in the clear, and something as ESP, here in UDP (udp) or
# not (esp)
protected() {
  sleep 0.5
  IKE="udp port 500 or udp port 4500 or (udp and ip[6:2] & 0x1fff != 0)"
  CLEAR=$(wire "not arp and not proto 50 and not ($IKE)")
  [ -z "$CLEAR" ] || fail "$1" "in the clear: $CLEAR"
  PLAIN=$(wire "proto 50" | wc -l) INSIDE=$(wire "udp port 4500 and udp[8:4] != 0" | wc -l)
  case ${2:-any} in
  esp) [ $PLAIN -gt 0 ] && [ $INSIDE -eq 0 ] ;;
  udp) [ $PLAIN -eq 0 ] && [ $INSIDE -gt 0 ] ;;
  any) [ $((PLAIN + INSIDE)) -gt 0 ] ;;
  esac || fail "$1" "no ESP, or not ${2:-}: protocol 50 $PLAIN, in UDP $INSIDE"
}

# clean STORY: our packet path had nothing to complain of
clean() {
  of "not any(s['counters']['plane'][n] for n in ('untransportable', 'inner_selector', 'inner_malformed', 'unauthentic'))" ||
    fail "$1" "$(status)"
}

stop() {
  kill $DUMP $NODE 2>/dev/null; wait $NODE 2>/dev/null
  peer_stop
  ip -n b xfrm state flush; ip -n b xfrm policy flush
  ip -n a xfrm policy flush
}
