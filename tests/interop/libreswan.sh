#!/bin/bash
# Guest side of the libreswan tests, with libreswan in b.
# usage: libreswan.sh RIG PLACE STORY...
set -u
RIG=$1 OE=$2/oe-node KEYS=$2; shift 2
. "$KEYS/guest.sh"
LOG=/tmp/pluto-b.log

# once a: one packet of that side's, which calls
once() {
  case $1 in
  a) ip netns exec a ping -n -c 1 -W 10 $IPB ;;
  b) ip netns exec b ping -n -c 1 -W 10 $IPA ;;
  tun) whack b --name tun --initiate ;;
  esac >/dev/null 2>&1
}

peer_stop() { whack b --shutdown >/dev/null 2>&1; sleep 1; }

# swan AUTHBY LINES...: libreswan in b
swan() {
  { printf 'config setup\n\tuniqueids=no\n\tdumpdir=/tmp\n\tdnssec-enable=yes\n\tdnssec-rootkey-file=""\n\tdnssec-anchors=/etc/dns/anchor.key\n'
    printf '%s\n' "$@"; } >/etc/ipsec-b/ipsec.conf
  : >/etc/ipsec-b/ipsec.secrets; rm -f $LOG
  pluto b
}

T=$(printf '\t')
opportunistic() { # AUTH LINES
  echo "$IPA/32" >/etc/ipsec-b/policies/private-or-clear; echo "$IPD/32" >/etc/ipsec-b/policies/clear
  swan "conn private-or-clear" "${T}ikev2=insist" "$@" "${T}left=%defaultroute" \
    "${T}right=%opportunisticgroup" "${T}negotiationshunt=hold" "${T}failureshunt=passthrough" \
    "${T}keyingtries=1" "${T}retransmit-timeout=20s" "${T}auto=ondemand" \
    "conn clear" "${T}type=passthrough" "${T}authby=never" "${T}left=%defaultroute" "${T}right=%group" "${T}auto=ondemand"
}

configured() { # STORY ENCAPSULATION: both keys written down at libreswan's side, ours asks DNS
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  swan "conn tun" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}auto=add"
  node "$2"
  there >$DIR/ping || true
  keyed dnssec a || fail "$1" "we call: not keyed"
  called "$1" a "0 0"
  capture
  there | grep -q " 0% packet loss" || fail "$1" "we call: loss"
  whack b --trafficstatus | cut -c1-200
  grep -hoE "authenticated using [A-Za-z0-9 _-]*" /tmp/pluto-b.log | sort | uniq -c
  whack b --name tun --terminate >/dev/null; sleep 2
  BEFORE=$(calls)
  whack b --name tun --initiate | cut -c1-160
  keyed dnssec tun || fail "$1" "libreswan calls: not keyed"
  called "$1" b "$BEFORE"
  back | grep -q " 0% packet loss" || fail "$1" "libreswan calls: loss"
  protected "$1"; stop; say "$1: ok"
}

ipseckey() { # both sides find the other's key in the reverse zone
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  for caller in a b; do
    opportunistic "${T}authby=rsasig" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" "${T}rightrsasigkey=%dnsondemand"
    node auto
    if [ $caller = a ]; then there >$DIR/ping; else back >$DIR/ping; fi
    keyed dnssec $caller || fail ipseckey "$caller calls: not keyed"
    called ipseckey $caller "0 0"
    capture
    there | grep -q " 0% packet loss" || fail ipseckey "$caller calls: loss"
    back | grep -q " 0% packet loss" || fail ipseckey "$caller calls: loss back"
    whack b --trafficstatus | cut -c1-200
    protected ipseckey; stop
  done
  say "ipseckey: ok"
}

null() { # nobody publishes anything, and both are content with that
  zone "77 IN PTR nobody.test."
  for caller in a b; do
    opportunistic "${T}authby=null" "${T}leftid=%null" "${T}rightid=%null"
    node auto 'null-auth = "call"'
    if [ $caller = a ]; then there >$DIR/ping; else back >$DIR/ping; fi
    keyed anonymous $caller || fail null "$caller calls: not keyed"
    called null $caller "0 0"
    capture
    there | grep -q " 0% packet loss" || fail null "$caller calls: loss"
    back | grep -q " 0% packet loss" || fail null "$caller calls: loss back"
    whack b --trafficstatus | cut -c1-200
    protected null; stop
  done
  say "null: ok"
}

# host STORY ENCAPSULATION OURS THEIRS MODE WIRE: between the two addresses alone; ours and
# libreswan's side ask for these modes, and what comes of it is the next
host() {
  zone "77 IN PTR nobody.test."
  cut -c3- /etc/ipsec-b/pub >$DIR/peer.key
  swan "conn host" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}type=$4" "${T}auto=add"
  node "$2" "[[connection]]
name = \"host\"
gateway = \"$IPB\"
remote-key = \"$DIR/peer.key\"
local-subnets = [\"$IPA\"]
remote-subnets = [\"$IPB\"]
mode = \"$3\""
  capture
  mode "$5" call || fail "$1" "we call: not up, or in another mode"
  kernel "$1" "we call" "$5"; both "$1" "we call"
  whack b --name host --rekey-ipsec | cut -c1-160; sleep 3
  mode "$5" || fail "$1" "rekeyed: not up, or in another mode"
  kernel "$1" rekeyed "$5"; both "$1" "rekeyed"
  whack b --name host --terminate >/dev/null; sleep 2
  whack b --name host --initiate | cut -c1-160
  mode "$5" || fail "$1" "libreswan calls: not up, or in another mode"
  kernel "$1" "libreswan calls" "$5"; both "$1" "libreswan calls"
  clean "$1"; protected "$1" "$6"; stop; say "$1: ok"
}

asked() { # libreswan calls whom it has by configuration, in transport mode; we find it in DNS
  zone "${IPB##*.} IN IPSECKEY $LSWKEY" "${IPA##*.} IN IPSECKEY $OEKEY"
  swan "conn host" "${T}ikev2=insist" "${T}authby=rsasig" "${T}left=$IPB" "${T}leftrsasigkey=$(cat /etc/ipsec-b/pub)" \
    "${T}right=$IPA" "${T}rightrsasigkey=0s${OEKEY##* }" "${T}type=transport" "${T}auto=add"
  node auto
  capture
  whack b --name host --initiate | cut -c1-160
  keyed dnssec b || fail asked "not keyed"
  called asked b "0 0"
  kernel asked "libreswan calls" transport; both asked "libreswan calls"
  whack b --name host --rekey-ipsec | cut -c1-160; sleep 3
  kernel asked rekeyed transport; both asked rekeyed
  protected asked; stop; say "asked: ok"
}

network
BITS=2192 keys b
LSWKEY=$(sed -n 's/.*IPSECKEY *\([0-9]* [0-9] [0-9] [^ ]* .*\)/\1/p' /etc/ipsec-b/ipseckey)
for story in "$@"; do
  case $story in
  configured) configured configured auto ;;
  encapsulated) configured encapsulated udp ;;
  transport) host transport auto transport transport transport esp ;;
  transport-udp) host transport-udp udp transport transport transport udp ;;
  declined) host declined auto transport tunnel tunnel esp ;;
  *) $story ;;
  esac
done
