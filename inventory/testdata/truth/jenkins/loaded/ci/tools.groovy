again = load 'ci/tools.groovy'

def withStore(Closure body) {
    withCredentials([file(variable: 'AWS_SHARED_CREDENTIALS_FILE', credentialsId: 'store-writer')]) {
        body()
    }
}

def copyTo(key) {
    again.copyTo(key)
    sshagent([key]) {
        sh 'rsync -a out/ store@mirror.example.com:/srv'
    }
}

def keyCredentialsExist() {
    return credentialsExist([string(credentialsId: 'next-key', variable: 'UNUSED')])
}

def signAll(site) {
    def keys = [string(credentialsId: "sign-${site}", variable: 'GPG_PASSPHRASE')]
    withCredentials(keys) {
        sh 'gpg --batch --passphrase "$GPG_PASSPHRASE" --detach-sign out/app'
    }
    withCredentials([string(credentialsId: env.TIMESTAMP_ID, variable: 'STAMP')]) {
        sh 'make stamp'
    }
}

def neverCalled() {
    def keys = [string(credentialsId: 'old-key', variable: 'OLD')]
    withCredentials(keys) {
        sh 'make old'
    }
}

return this
