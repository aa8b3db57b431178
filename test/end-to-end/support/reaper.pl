#!/usr/bin/perl
# A substitute for ryuk, Testcontainers' reaper, whose image tests can't pull: the same protocol and rule, through the same
# mounted socket. Clients send lines "label=NAME=VALUE", each is answered with ACK. Once no client has been connected for
# ten seconds, containers, networks and volumes with one of the labels are removed.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

my ($first_client_seconds, $reconnection_seconds) = (60, 10);
my %labels;

sub ask {
    my ($method, $path) = @_;
    my $engine = IO::Socket::UNIX->new(Peer => '/var/run/docker.sock') or die "docker.sock: $!";
    print $engine "$method $path HTTP/1.0\r\nContent-Length: 0\r\n\r\n";
    local $/;
    return scalar <$engine>;
}

sub remove_labelled {
    my ($label) = @_;
    my $filters = qq({"label":["$label"],"all":["true"]});
    $filters =~ s/([^A-Za-z0-9.-])/sprintf '%%%02X', ord $1/ge;
    (my $containers = $filters) =~ s/%2C.*(?=%7D)//;
    open my $file, '<', '/etc/hostname' or die "hostname: $!";
    chomp(my $own = <$file>);
    for my $id (ask('GET', "/containers/json?all=1&filters=$containers") =~ /"Id":"([0-9a-f]{64})"/g) {
        ask('DELETE', "/containers/$id?force=1&v=1") if index($id, $own) != 0;
    }
    ask('POST', "/networks/prune?filters=$containers");
    ask('POST', "/volumes/prune?filters=$filters");
}

$SIG{TERM} = sub { exit 0 };
$| = 1;
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 16, ReuseAddr => 1) or die "port 8080: $!";
my $open = IO::Select->new($server);
my %received;
print "Started\n";
while (1) {
    my $patience = %labels ? $reconnection_seconds : $first_client_seconds;
    my @ready = $open->can_read($open->count > 1 ? undef : $patience) or last;
    for my $socket (@ready) {
        if ($socket == $server) {
            $open->add(scalar $server->accept);
        } elsif (sysread $socket, $received{$socket}, 4096, length($received{$socket} // '')) {
            while ($received{$socket} =~ s/^label=([^\r\n]+)\r?\n//) {
                $labels{$1} = 1;
                syswrite $socket, "ACK\n";
            }
        } else {
            $open->remove($socket);
            delete $received{$socket};
            close $socket;
        }
    }
}
remove_labelled($_) for keys %labels;
